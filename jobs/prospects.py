"""What is to be told of jobs that wait: turn, reason, expected start and end. By the planner's own predicates."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from stoker.jobs.capacity import RecentMix
from stoker.jobs.dispatch import Means, read_situation
from stoker.jobs.durations import RecentDurations, running_durations, waiting_durations
from stoker.jobs.estimates import Known
from stoker.jobs.forecast import Duration, Durations, later
from stoker.jobs.helps import helps
from stoker.jobs.lifecycle import State
from stoker.jobs.models import Estimate, Job
from stoker.jobs.outlook import Draining, Outlook, look_ahead
from stoker.jobs.planner import Plan, plan
from stoker.jobs.reasons import Reason
from stoker.jobs.situation import NEW, Candidate, Situation
from stoker.jobs.told import Correction, correction, record
from stoker.jobs.window import queue_window

FORESEE_LOCK = 0x464F524553  # of pg_try_advisory_xact_lock
MOST_FORESEEN = 100  # at once


@dataclass(frozen=True, slots=True)
class Ahead:
    """Jobs of one team that are expected to start before a job."""

    team: str
    jobs: int


@dataclass(frozen=True, slots=True)
class Expected:
    """When a job is expected to start and to end; None: nobody can tell. Eight starts of ten lie in the range."""

    start_at: datetime | None
    start_low_at: datetime | None
    start_high_at: datetime | None
    end_at: datetime | None


@dataclass(frozen=True, slots=True)
class Prospect:
    """All that is told of a job that waits for its turn."""

    number: int
    reason: Reason
    position: int  # 1: the next to start
    ahead: list[Ahead]
    expected: Expected
    where: str | None  # the worker on which it is expected to run
    helps: list[str]  # what would let it start sooner


@dataclass
class Foresight:
    """What a process keeps between questions; answers are the same without it, and slower."""

    durations: RecentDurations = field(default_factory=RecentDurations)
    mix: RecentMix = field(default_factory=RecentMix)

    def look(self, session: Session, extra: tuple[Candidate, Duration] | None = None) -> "Look":
        """Look at the queue; with ``extra`` as if this job, which runs so long, had just been queued."""
        known = self.known(session)
        runs = running_durations(session, known)
        known = known.with_running((run.like, run.pace) for run in runs if run.pace)
        queue = queue_window(session)
        jobs = session.scalars(select(Job).where(Job.number.in_([job.number for job in queue])))
        lasts = waiting_durations(session, known, list(jobs))
        if extra is not None:
            queue, lasts = [*queue, extra[0]], lasts | {extra[0].number: extra[1]}
        left = {run.number: run.left for run in runs}
        rule = self.mix.rule(session)
        situation = read_situation(session, queue, Means(rule=rule))
        situation = replace(situation, estimates=Known(lasts, left, situation.now))
        return Look(Draining(situation, rule, lasts, left), plan(situation, rule), correction(session))

    def known(self, session: Session) -> Durations:
        """What is known of how long jobs take."""
        return self.durations.read(session)


@dataclass(frozen=True)
class Look:
    """The queue at one moment, planned."""

    draining: Draining
    plan: Plan
    correction: Correction

    @property
    def situation(self) -> Situation:
        """What was planned for."""
        return self.draining.situation

    @property
    def now(self) -> datetime:
        """That moment."""
        return datetime.fromtimestamp(self.situation.now, UTC)

    def prospects(self, session: Session, wanted: Collection[int]) -> list[Prospect]:
        """What is to be told of these jobs, the next to start first; the estimates are recorded.

        A job that is not in the window is left out.
        """
        jobs = {job.number: job for job in self.situation.queue}
        looked = look_ahead(self.draining, [number for number in wanted if number in jobs])
        told = {number: self.correction.apply(outlook) for number, outlook in looked.items()}
        record(
            session,
            self.now,
            ((number, told[number], looked[number].start_seconds or 0.0) for number in looked if number != NEW),
        )
        found = [self._prospect(jobs[number], outlook) for number, outlook in told.items()]
        return sorted(found, key=lambda prospect: prospect.position)

    def _prospect(self, job: Candidate, outlook: Outlook) -> Prospect:
        names = self.situation.shares.teams
        teams = Counter(names[one.team].name for one in outlook.ahead)
        spot = outlook.spot
        return Prospect(
            job.number,
            self.plan.reason(job),
            outlook.position,
            [Ahead(team, count) for team, count in teams.most_common()],
            Expected(
                *(
                    None if seconds is None else later(self.now, seconds)
                    for seconds in (
                        outlook.start_seconds,
                        outlook.start_low_seconds,
                        outlook.start_high_seconds,
                        outlook.end_seconds,
                    )
                )
            ),
            next((node.name for node in self.situation.fleet if spot is not None and node.id == spot.node), None),
            helps(job, self.plan.made.board.nodes, outlook.ahead),
        )


def foresee(session: Session, foresight: Foresight) -> int:
    """Record an estimate for waiting jobs that have none yet, unless another process does; returns for how many."""
    if not session.scalar(select(func.pg_try_advisory_xact_lock(FORESEE_LOCK))):
        return 0
    known = select(Estimate.job_number).where(Estimate.job_number == Job.number).exists()
    new = select(Job.number).where(Job.state == State.QUEUED, ~known).order_by(Job.number).limit(MOST_FORESEEN)
    numbers = list(session.scalars(new))
    return len(foresight.look(session).prospects(session, numbers)) if numbers else 0
