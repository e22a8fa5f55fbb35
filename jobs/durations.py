"""What the database knows of how long jobs take: of those that ended, and of those that run."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from sqlalchemy import Row, func, select, text
from sqlalchemy.orm import Session

from stoker.jobs.estimates import span
from stoker.jobs.forecast import Duration, Durations, Like, Pace, like, pace
from stoker.jobs.lifecycle import State
from stoker.jobs.models import Attempt, Job
from stoker.jobs.situation import Candidate, Running, Span

PAST_DAYS, PAST_JOBS = 28, 2000  # of which durations are learned
PAST_SECONDS = 60.0  # how long what was learned is good, at most,
EACH_SECONDS = 0.5  # and for each job that it was learned from: where little is known each end tells a lot
READ_AT_ONCE = 32  # waiting jobs


@dataclass(frozen=True, slots=True)
class Run:
    """A job that is placed or runs."""

    number: int
    left: Duration
    like: Like
    pace: Pace | None  # None before it made a step


class RecentDurations:
    """What jobs of the last weeks took; read again when a minute has passed, or less where little is known."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._read_at = 0.0
        self._known: Durations | None = None

    def read(self, session: Session) -> Durations:
        """The durations known, as of at most a minute ago."""
        if self._known is None or self._clock() - self._read_at >= min(PAST_SECONDS, EACH_SECONDS * self._known.count):
            self._read_at = self._clock()
            self._known = past_durations(session)
        return self._known

    def estimates(self, session: Session, queue: Sequence[Candidate], _running: Sequence[Running]) -> "Asked":
        """What the planner may ask in this transaction."""
        return Asked(session, self.read(session), queue)


class Lasts(Mapping[int, Duration]):
    """How long waiting jobs will run once they start; one with a checkpoint goes on from there."""

    def __init__(self, session: Session, known: Durations, queue: Sequence[Candidate]) -> None:
        """Of the jobs in ``queue``, which may grow: they are read as they are asked for, many at once."""
        self._session, self._durations, self._queue = session, known, queue
        self._found: dict[int, Duration | Row[Any] | None] = {}

    def __getitem__(self, number: int) -> Duration:
        """The duration of one job; raises KeyError: there is no such job."""
        if number not in self._found:
            self._read(number)
        found = self._found[number]
        if found is None:
            raise KeyError(number)
        if not isinstance(found, Duration):
            one = _like(found)
            work = max(1.0 - found.done, 0.001) * one.work
            found = self._found[number] = self._durations.expected(replace(one, work=work))
        return found

    def __iter__(self) -> Iterator[int]:
        """The jobs in the queue, as far as that is read."""
        return (job.number for job in self._queue)

    def __len__(self) -> int:
        """How many these are."""
        return len(self._queue)

    def add(self, number: int, duration: Duration) -> None:
        """Tell of a job that is only thought of."""
        self._found[number] = duration

    def _read(self, number: int) -> None:
        """Read a job, and with it those that came into the queue last: they are asked for next."""
        unknown = (job.number for job in reversed(self._queue) if job.number not in self._found)
        wanted = {number, *islice(unknown, READ_AT_ONCE)}
        rows = self._session.execute(_WAITING, {"numbers": list(wanted)})
        self._found |= dict.fromkeys(wanted) | {row.number: row for row in rows}


class Asked:
    """What the planner asks about durations: of running jobs all at once, of waiting ones when it wants to know."""

    def __init__(self, session: Session, known: Durations, queue: Sequence[Candidate]) -> None:
        self._session, self._durations = session, known
        self._lasts = Lasts(session, known, queue)
        self._left: dict[int, Duration] | None = None

    def add(self, number: int, duration: Duration) -> None:
        """Tell of a job that is only thought of."""
        self._lasts.add(number, duration)

    def of(self, job: Candidate, device: str) -> Span | None:  # noqa: ARG002 - like jobs ran where this one may
        """From a start to the end."""
        found = self._lasts.get(job.number)
        return None if found is None else span(found)

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


# Of a spec of jobs j what says how long such a job runs and where it fits. As text: no other part of it travels.
SPEC = """jsonb_build_object('kind', j.kind, j.kind, j.spec->j.kind, 'resources', j.spec->'resources',
        'time_limit', j.spec->'time_limit') AS spec"""
_LIKE = f"j.number, j.owner_id, j.team_id, j.pinned_machine, {SPEC}"
_WAITING = text(f"""
SELECT {_LIKE}, least(1.0, coalesce(c.step / nullif((a.progress->>'steps')::float8, 0), 0.0)) AS done
FROM jobs j LEFT JOIN checkpoints c ON c.id = j.latest_checkpoint_id LEFT JOIN attempts a ON a.id = c.attempt_id
WHERE j.number = ANY(CAST(:numbers AS bigint[]))
""")  # noqa: S608 - constants
_RUNNING = text(f"""
SELECT {_LIKE}, a.device, a.progress, a.resumed_step,
    extract(epoch FROM clock_timestamp() - a.claimed_at)::float8 AS ran,
    extract(epoch FROM a.progressed_at - a.first_step_at)::float8 AS stepped
FROM attempts a JOIN jobs j ON j.number = a.job_number
WHERE a.state <> 'ended' AND (CAST(:numbers AS bigint[]) IS NULL OR j.number = ANY(CAST(:numbers AS bigint[])))
ORDER BY j.number
""")  # noqa: S608 - constants


def _like(row: Row[Any], device: str | None = None) -> Like:
    """The groups that a job belongs to."""
    return like(row.spec, owner_id=row.owner_id, team_id=row.team_id, device=device, machine=row.pinned_machine)


def running_durations(session: Session, known: Durations, numbers: Sequence[int] | None = None) -> list[Run]:
    """How long each job that is placed or runs goes on; only these jobs, if given."""
    found = []
    for row in session.execute(_RUNNING, {"numbers": numbers if numbers is None else list(numbers)}):
        own, kind = pace(row.progress, row.resumed_step, row.stepped), _like(row, row.device)
        found.append(Run(row.number, known.left(kind, row.ran or 0.0, own), kind, own))
    return found
