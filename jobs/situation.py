"""What the planner is told, and what it answers. Pure; times are seconds since 1970, by the database's clock."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from stoker.jobs.fit import Demand, Node, Spot
from stoker.jobs.policy import DEFAULT_POLICY, Policy
from stoker.jobs.shares import NO_SHARES, Shares

LOW, NORMAL, HIGH, URGENT = range(4)
NEW = 2**62  # the number of a job that is only thought of


@dataclass(frozen=True, slots=True)
class Candidate:
    """A queued job as the planner sees it."""

    number: int
    priority: int  # 0 low to 3 urgent
    demand: Demand
    team: int = 0
    user: int = 0
    own_order: int = 0  # of the user's own jobs of one priority the lowest goes first, then the lowest number
    queued_at: float = 0.0
    data: str | None = None  # what it reads
    time_limit_seconds: float | None = None
    more: bool = False  # the window ends here: more of this user's jobs of this priority and shape stand behind


@dataclass(frozen=True, slots=True)
class Running:
    """A job that is placed or runs."""

    number: int
    priority: int
    demand: Demand
    spot: Spot
    team: int = 0
    user: int = 0
    placed_at: float = 0.0
    kept_at: float = 0.0  # when its last checkpoint was made, or it started: later work is lost with it
    claimed: bool = True  # by its worker
    preempted_at: float | None = None  # when it last had to make room
    leaves_for: int | None = None  # was asked to make room for this job; 0: for nobody in particular
    time_limit_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Reservation:
    """A place promised to a job that cannot start yet; it stays between passes."""

    number: int
    spot: Spot
    made_at: float
    starts_at: float | None = None  # the first start that was promised; None: nobody can tell
    expires_at: float | None = None  # what victims freed is held so long; None: while the job waits


@dataclass(frozen=True, slots=True)
class Span:
    """How long something takes, in seconds: three of its percentiles."""

    ten: float
    middle: float
    ninety: float


class Estimates(Protocol):
    """How long jobs take, as far as anybody can tell."""

    def of(self, job: Candidate, device: str, /) -> Span | None:
        """From a start on ``cpu`` or ``gpu`` to the end; None: no idea."""

    def left(self, running: Running, now: float, /) -> Span | None:
        """From now to the end; None: no idea."""


class LimitsOnly:
    """Knows nothing but the time limits that jobs gave themselves."""

    def of(self, job: Candidate, device: str) -> Span | None:  # noqa: ARG002
        """At most the time limit."""
        limit = job.time_limit_seconds
        return None if limit is None else Span(0.0, limit, limit)

    def left(self, running: Running, now: float, /) -> Span | None:
        """At most what is left of the time limit."""
        if running.time_limit_seconds is None:
            return None
        left = max(0.0, running.placed_at + running.time_limit_seconds - now)
        return Span(0.0, left, left)


@dataclass(frozen=True, slots=True)
class Lane:
    """A user's queued jobs of one class."""

    team: int
    user: int
    priority: int
    oldest_at: float  # when the one was queued that waits longest


class Unread(Protocol):
    """The queue, of which a plan reads what may come next. Its answers are those of the whole queue."""

    @property
    def lanes(self) -> Sequence[Lane]:
        """All that have jobs, and maybe others."""

    def demands(self, team: int, /) -> Collection[Demand]:
        """All that a team's jobs ask for, and maybe more."""

    def read(self, lanes: Sequence[Lane], /) -> Sequence[Candidate]:
        """Of these lanes the first jobs of each demand, without those in ``Situation.queue``."""


@dataclass(frozen=True)
class Situation:
    """All that a plan is made of."""

    now: float
    queue: Sequence[Candidate]
    fleet: Sequence[Node]
    running: Sequence[Running] = ()
    reservations: Sequence[Reservation] = ()
    shares: Shares = NO_SHARES
    policy: Policy = DEFAULT_POLICY
    estimates: Estimates = field(default_factory=LimitsOnly)
    unread: Unread | None = None  # more of the queue


@dataclass(frozen=True, slots=True)
class Placement:
    """A decision: this job, there."""

    number: int
    demand: Demand
    spot: Spot


@dataclass(frozen=True, slots=True)
class Preemption:
    """A decision: this running job makes room for that one."""

    number: int
    beneficiary: int
    sentence: str  # for the one who has to leave
