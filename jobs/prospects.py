"""What is to be told of jobs that wait: turn, reason, expected start and end. By the planner's own predicates."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from stoker.jobs.capacity import RecentMix, other_fleet
from stoker.jobs.dispatch import Means, read_situation
from stoker.jobs.durations import Asked, Lasts, RecentDurations, running_durations
from stoker.jobs.forecast import Duration, Durations, later
from stoker.jobs.helps import helps
from stoker.jobs.lanes import Lanes
from stoker.jobs.lifecycle import State
from stoker.jobs.models import Estimate, Job
from stoker.jobs.outlook import PASSES, Drained, Draining, Outlook, look_ahead
from stoker.jobs.planner import plan
from stoker.jobs.present import Runs
from stoker.jobs.reasons import NEXT, Reason
from stoker.jobs.recent_reasons import Reasons, RecentReasons
from stoker.jobs.situation import NEW, Candidate, Running, Situation
from stoker.jobs.submitted import RecentlySubmitted
from stoker.jobs.told import Correction, correction, record
from stoker.jobs.walk import Kept
from stoker.jobs.window import Demands, queue_window, short

WHOLE = 1000  # jobs; a queue of no more is read whole: then each has a place
DEPTH = 1  # jobs of one user, priority and shape of a longer one; more are read as they start in simulated time
BUDGET_SECONDS = 1.0  # of thinking, in one look
REASONS_SECONDS = 1.0  # how long one plan tells reasons
FORESEE_LOCK = 0x464F524553  # of pg_try_advisory_xact_lock
MOST_FORESEEN = 100  # at once
UNABLE = frozenset({"no_gpu", "no_worker", "other_version"})  # codes of jobs that wait for a worker, and for no job

Extra = tuple[Candidate, Duration]


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
    position: int | None  # 1: the next to start; None: nobody can tell
    ahead: list[Ahead]  # those who start before it
    further: bool  # others do, too
    expected: Expected
    where: str | None  # the worker on which it is expected to run
    helps: list[str]  # what would let it start sooner


@dataclass(frozen=True)
class Planned:
    """What a pass would decide now."""

    situation: Situation
    read: Sequence[Candidate]  # of the queue; grows
    lanes: Lanes | None  # the rest; None: that is all of it
    kept: Kept | None
    reasons: Reasons


@dataclass
class Foresight:
    """What a process keeps between questions; answers are the same without it, and slower."""

    durations: RecentDurations = field(default_factory=RecentDurations)
    mix: RecentMix = field(default_factory=RecentMix)
    demands: Demands = field(default_factory=Demands)
    runs: Runs = field(default_factory=Runs)
    submitted: RecentlySubmitted = field(default_factory=RecentlySubmitted)
    reasons: RecentReasons = field(default_factory=lambda: RecentReasons(REASONS_SECONDS))
    whole: int = WHOLE
    budget_seconds: float = field(default_factory=lambda: BUDGET_SECONDS)

    def reason(self, session: Session, number: int) -> Reason:
        """Why a job that takes turns does not start now: what a pass would decide, or would have a moment ago."""
        reason = self.reasons.of(number)
        if reason is None:
            planned = self._plan(session, [number])
            job = next((job for job in planned.read if job.number == number), None)
            reason = planned.reasons.of(job) if job else NEXT
            self.reasons.keep(planned.read, planned.reasons)
        return reason

    def look(self, session: Session, about: Collection[int] = (), extra: Extra | None = None) -> "Look":
        """Look at the queue to tell about these jobs, or about one that is not queued yet and runs so long."""
        known = self.known(session)
        runs = running_durations(session, known)
        left = {run.number: run.left for run in runs}
        planned = self._plan(session, about, extra)
        known = known.with_running((run.like, run.pace) for run in runs if run.pace)
        lasts = Lasts(session, known, planned.read)
        if extra is not None:
            lasts.add(extra[0].number, extra[1])
        days = self.submitted.read(session).days(known, planned.situation.now)
        draining = Draining(
            planned.situation,
            self.mix.rule(session),
            lasts,
            left,
            budget_seconds=self.budget_seconds,
            days=days,
            kept=planned.kept,
        )
        return Look(draining, planned.reasons, correction(session), planned.lanes, blind=known.nothing)

    def _plan(self, session: Session, about: Collection[int], extra: Extra | None = None) -> "Planned":
        """Plan as a pass does; a long queue is read as a pass reads it, where turns come."""

        def estimates(session: Session, queue: Sequence[Candidate], running: Sequence[Running]) -> Asked:
            asked = self.durations.estimates(session, queue, running)
            if extra is not None:
                asked.add(extra[0].number, extra[1])
            return asked

        means = Means(self.mix.rule(session), self.demands, estimates, runs=self.runs)
        lanes = None if short(session, self.whole) else Lanes(session, DEPTH, self.demands, about)
        queue = lanes.first if lanes else queue_window(session, self.whole, self.demands)
        situation = read_situation(session, queue, means, lanes)
        kept = Kept(lanes) if lanes else None
        asked = [*(job for job in queue if job.number in about), *([extra[0]] if extra else [])]
        before = kept.begin({(job.team, job.user, job.priority) for job in asked}) if kept else []  # nobody is passed
        situation = replace(situation, queue=[*queue, *before, *([extra[0]] if extra else [])])
        made = plan(replace(situation, unread=kept.walk() if kept else None), means.rule)
        return Planned(situation, lanes.seen if lanes else queue, lanes, kept, Reasons(made, other_fleet(session)))

    def known(self, session: Session) -> Durations:
        """What is known of how long jobs take."""
        return self.durations.read(session)


@dataclass(frozen=True)
class Look:
    """The queue at one moment, planned."""

    draining: Draining
    reasons: Reasons
    correction: Correction
    lanes: Lanes | None = None  # where not all that is queued was read
    blind: bool = False  # no job has ever told how long it takes, so none is told when it starts

    @property
    def whole(self) -> bool:
        """Whether all that is queued was read."""
        return self.lanes is None

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

        A job that was not read is left out.
        """
        return self._tell(session, {job.number: job for job in self.situation.queue if job.number in wanted})

    def next(self, session: Session, team: int | None, most: int) -> list[Prospect]:
        """The same of so many jobs that start next, of one team or of all.

        Where fewer are seen to start, those that stand behind them are told, too.
        """

        def these(started: Iterable[Candidate]) -> list[Candidate]:
            return [job for job in started if team in {None, job.team}]

        if self.lanes is None:
            return self._tell(session, {job.number: job for job in these(self.situation.queue)}, most)
        first = self.draining.run(None, lambda line: len(these(self.draining.of_queue(line))) >= most, PASSES)
        jobs = {job.number: job for job in these(first.order)}
        if len(jobs) < most:
            jobs |= {job.number: job for job in self.lanes.next(team, most - len(jobs), jobs)}
        return self._tell(session, jobs, most, first)

    def _tell(
        self, session: Session, jobs: Mapping[int, Candidate], most: int | None = None, first: Drained | None = None
    ) -> list[Prospect]:
        looked = look_ahead(self.draining, jobs, first=first)
        looked = dict(sorted(looked.items(), key=lambda item: item[1].position)[:most])
        corrected = Outlook.without_times if self.blind else self.correction.apply
        told = {number: corrected(outlook) for number, outlook in looked.items()}
        record(
            session,
            self.now,
            ((number, told[number], looked[number].start_seconds or 0.0) for number in looked if number != NEW),
        )
        return [self._prospect(jobs[number], outlook) for number, outlook in told.items()]

    def _prospect(self, job: Candidate, outlook: Outlook) -> Prospect:
        names, reason = self.situation.shares.teams, self.reasons.of(job)
        able = reason.code not in UNABLE
        ahead = outlook.ahead if able else ()
        teams = Counter(names[one.team].name for one in ahead)
        spot, further = outlook.spot, able and outlook.further
        ranked = able or self.whole or outlook.start_seconds is not None  # or all who wait for a worker were the next
        return Prospect(
            job.number,
            reason,
            outlook.position if ranked and not outlook.further else None,
            [Ahead(team, count) for team, count in teams.most_common()],
            further,
            self._expected(outlook),
            next((node.name for node in self.situation.fleet if spot is not None and node.id == spot.node), None),
            helps(job, self.reasons.plan.made.board.nodes, ahead, held=self._held, further=further),
        )

    @property
    def _held(self) -> frozenset[int]:
        return frozenset(one.number for one in self.reasons.plan.reservations)

    def _expected(self, outlook: Outlook) -> Expected:
        start, low, high = outlook.start_seconds, outlook.start_low_seconds, outlook.start_high_seconds
        times = (start, low, high, outlook.end_seconds)
        return Expected(*(None if seconds is None else later(self.now, seconds) for seconds in times))


def foresee(session: Session, foresight: Foresight) -> int:
    """Record an estimate for waiting jobs that have none yet, unless another process does; returns for how many."""
    if not session.scalar(select(func.pg_try_advisory_xact_lock(FORESEE_LOCK))):
        return 0
    known = select(Estimate.job_number).where(Estimate.job_number == Job.number).exists()
    new = select(Job.number).where(Job.state == State.QUEUED, ~known).order_by(Job.number).limit(MOST_FORESEEN)
    numbers = list(session.scalars(new))
    if not numbers:
        return 0
    look = foresight.look(session)
    return len(look.prospects(session, numbers) if look.whole else look.next(session, None, MOST_FORESEEN))
