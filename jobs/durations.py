"""What the database knows of how long jobs take: of those that ended, and of those that run."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from stoker.jobs.estimates import span
from stoker.jobs.forecast import Duration, Durations, Like, Pace, like, pace
from stoker.jobs.lifecycle import AttemptState, State
from stoker.jobs.models import Attempt, Checkpoint, Job
from stoker.jobs.situation import Candidate, Running, Span

PAST_DAYS, PAST_JOBS = 28, 2000  # of which durations are learned
PAST_SECONDS = 60.0  # how long what was learned is good


@dataclass(frozen=True, slots=True)
class Run:
    """A job that is placed or runs."""

    number: int
    left: Duration
    like: Like
    pace: Pace | None  # None before it made a step


class RecentDurations:
    """What jobs of the last weeks took; read again when a minute has passed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._read_at = 0.0
        self._known: Durations | None = None

    def read(self, session: Session) -> Durations:
        """The durations known, as of at most a minute ago."""
        if self._known is None or self._clock() - self._read_at >= PAST_SECONDS:
            self._read_at = self._clock()
            self._known = past_durations(session)
        return self._known

    def estimates(self, session: Session, _queue: Sequence[Candidate], _running: Sequence[Running]) -> "Asked":
        """What the planner may ask in this transaction."""
        return Asked(session, self.read(session))


class Asked:
    """What the planner asks about durations: of running jobs all at once, of waiting ones when it wants to know."""

    def __init__(self, session: Session, known: Durations) -> None:
        self._session, self._durations = session, known
        self._lasts: dict[int, Duration] = {}
        self._left: dict[int, Duration] | None = None

    def of(self, job: Candidate, device: str) -> Span | None:  # noqa: ARG002 - like jobs ran where this one may
        """From a start to the end."""
        if job.number not in self._lasts:
            found = self._session.get(Job, job.number)
            if found is None:
                return None
            self._lasts |= waiting_durations(self._session, self._durations, [found])
        return span(self._lasts[job.number])

    def left(self, running: Running, now: float) -> Span | None:  # noqa: ARG002 - as of this transaction
        """From now to the end."""
        if self._left is None:
            self._left = {run.number: run.left for run in running_durations(self._session, self._durations)}
        found = self._left.get(running.number)
        return None if found is None else span(found)


def past_durations(session: Session) -> Durations:
    """Learn from the latest jobs that ended by themselves, however they ended: what fails early frees its devices."""
    latest = (
        select(Job.number)
        .where(Job.state.in_([State.SUCCEEDED, State.FAILED]))
        .where(Job.finished_at > func.now() - text(f"interval '{PAST_DAYS} days'"))
        .order_by(Job.finished_at.desc())
        .limit(PAST_JOBS)
        .subquery()
    )
    seen = func.extract("epoch", Attempt.ended_at - Attempt.claimed_at)  # of one whose supervisor died
    ran = func.sum(func.coalesce(Attempt.ran_seconds, seen))
    rows = session.execute(
        select(Job.owner_id, Job.team_id, Job.spec, Job.pinned_machine, func.max(Attempt.device), ran)
        .join(latest, latest.c.number == Job.number)
        .join(Attempt, Attempt.job_number == Job.number)
        .where(Attempt.claimed_at.is_not(None))
        .group_by(Job.number)
        .order_by(Job.finished_at.desc())
    )
    return Durations(
        (like(spec, owner_id=owner, team_id=team, device=device, machine=machine), float(seconds))
        for owner, team, spec, machine, device, seconds in rows
    )


def like_job(job: Job, device: str | None = None) -> Like:
    """The groups that a job belongs to."""
    return like(job.spec, owner_id=job.owner_id, team_id=job.team_id, device=device, machine=job.pinned_machine)


def waiting_durations(session: Session, known: Durations, jobs: list[Job]) -> dict[int, Duration]:
    """How long each of these jobs will run once it starts; one with a checkpoint goes on from there."""
    steps = _checkpointed(session, [job.latest_checkpoint_id for job in jobs if job.latest_checkpoint_id is not None])
    found: dict[int, Duration] = {}
    for job in jobs:
        one = like_job(job)
        rest = 1.0 - steps.get(job.number, 0.0)
        found[job.number] = known.expected(replace(one, work=max(rest, 0.001) * one.work))
    return found


def _checkpointed(session: Session, ids: list[int]) -> dict[int, float]:
    """For each job the share of its steps that its latest checkpoint holds, as far as it is known."""
    if not ids:
        return {}
    steps = Attempt.progress["steps"].as_float()
    rows = session.execute(
        select(Checkpoint.job_number, Checkpoint.step / func.nullif(steps, 0))
        .join(Attempt, Attempt.id == Checkpoint.attempt_id)
        .where(Checkpoint.id.in_(ids))
    )
    return {number: min(1.0, float(share)) for number, share in rows if share is not None}


def running_durations(session: Session, known: Durations, numbers: Sequence[int] | None = None) -> list[Run]:
    """How long each job that is placed or runs goes on; only these jobs, if given."""
    now = func.clock_timestamp()
    ran = func.extract("epoch", now - Attempt.claimed_at)
    stepped = func.extract("epoch", Attempt.progressed_at - Attempt.first_step_at)
    statement = (
        select(Job, Attempt, ran, stepped)
        .join(Attempt, Attempt.job_number == Job.number)
        .where(Attempt.state != AttemptState.ENDED)
        .order_by(Job.number)
    )
    if numbers is not None:
        statement = statement.where(Job.number.in_(numbers))
    found = []
    for job, attempt, ran_seconds, stepped_seconds in session.execute(statement):
        own = pace(attempt.progress, attempt.resumed_step, _number(stepped_seconds))
        kind = like_job(job, attempt.device)
        left = known.left(kind, _number(ran_seconds) or 0.0, own)
        found.append(Run(job.number, left, kind, own))
    return found


def _number(value: object) -> float | None:
    return None if value is None else float(str(value))
