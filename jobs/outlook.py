"""When jobs will start: the queue drained by the planner in simulated time, a few times with different luck. Pure."""

import math
import random
import time
from collections import ChainMap, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from stoker.jobs.arrivals import Day, begin
from stoker.jobs.estimates import Known
from stoker.jobs.fit import Spot
from stoker.jobs.forecast import Duration
from stoker.jobs.placement import Rule
from stoker.jobs.situation import NEW, Candidate, Situation
from stoker.jobs.timeline import Timeline
from stoker.jobs.walk import Kept

RUNS = 9  # odd: the middle one is the estimate
PASSES = 400  # of the planner, for all runs together
GRAIN = 0.05  # what happens within so great a part of the time since now is planned for at once


@dataclass(frozen=True, slots=True)
class Outlook:
    """When a job may be expected to start and to end, in seconds from now; None: too far away to tell."""

    ahead: tuple[Candidate, ...]  # who starts before it
    start_seconds: float | None
    start_low_seconds: float  # one start of ten is earlier
    start_high_seconds: float | None  # one of ten is later
    end_seconds: float | None
    spot: Spot | None  # where
    further: bool = False  # others start before it, too: those that were looked at are not all

    @property
    def position(self) -> int:
        """1: the next to start; the lowest that it can be, where others start before it, too."""
        return len(self.ahead) + 1

    def without_times(self) -> "Outlook":
        """The order alone, unless it starts at once."""
        if self.start_seconds == 0.0:
            return replace(self, end_seconds=None)
        return replace(self, start_seconds=None, start_low_seconds=0.0, start_high_seconds=None, end_seconds=None)


Wanted = Callable[[Timeline], bool]  # whether a run has come far enough


@dataclass(frozen=True, slots=True)
class Drained:
    """One run: seconds to each start, and where it was."""

    order: Sequence[Candidate]  # of the jobs that waited, as they started
    starts: Mapping[int, float]
    spots: Mapping[int, Spot]
    passes: int
    cut: bool = False  # it was ended before nothing happened any more
    unread: bool = False  # a part of the queue, to which no turn had come
    waiting: frozenset[int] = frozenset()  # jobs of the queue that were read and have not started

    def further(self, number: int) -> bool:
        """Whether others may start before a job that has not started, besides those that have."""
        return self.cut and (self.unread or bool(self.waiting - {number}))


@dataclass(frozen=True)
class Draining:
    """What a queue is drained with."""

    situation: Situation
    rule: Rule
    lasts: Mapping[int, Duration]  # of the waiting jobs
    left: Mapping[int, Duration]  # of the running ones
    clock: Callable[[], float] = time.monotonic
    budget_seconds: float = math.inf  # of thinking; what has not started by then has no estimate
    days: Sequence[Day] = ()  # that may come again
    kept: Kept | None = None  # the rest of the queue, where that is too long to be read whole
    started: float = field(init=False)

    def __post_init__(self) -> None:
        """Start the clock."""
        object.__setattr__(self, "started", self.clock())

    def over(self) -> bool:
        """Whether enough time was spent."""
        return self.clock() - self.started > self.budget_seconds

    def run(self, luck: random.Random | None, wanted: Wanted, passes: int, day: int = 0) -> Drained:
        """Drain until there is what is wanted, while one of the past days comes again.

        Without luck every job takes the middle of what it may take.
        """

        def draw() -> float:
            return 0.5 if luck is None else luck.random()

        shares = defaultdict(draw, {number: draw() for number in (*self.lasts, *self.left)})

        came: dict[int, Duration] = {}
        known: Mapping[int, Duration] = ChainMap(came, self.lasts)  # type: ignore[arg-type]  # nobody writes to it

        def lasts(job: Candidate, _: str) -> float:
            return known[job.number].quantile(shares[job.number]) if job.number in known else 3600.0

        now = self.situation.now
        situation = replace(
            self.situation,
            queue=[job if self.kept else replace(job, more=False) for job in self.situation.queue],
            estimates=Known(known, self.left, now),
        )
        left = {number: duration.quantile(shares[number]) for number, duration in self.left.items()}
        walk = self.kept.walk() if self.kept else None
        line = Timeline(situation, self.rule, lasts, left=left, walk=walk)
        if self.days:
            begin(self.days[day % len(self.days)], line, came)
        line.plan()
        used, cut = 1, True
        while used < passes and not wanted(line) and not self.over():
            if not line.step(GRAIN * (line.now - now)):
                cut = False
                break
            used += 1
        starts = {number: at - now for number, at in line.first_starts.items()}
        waiting = frozenset(number for number in line.waiting if number <= NEW) - line.first_starts.keys()
        unread = walk is not None and bool(walk.lanes)
        return Drained(self.of_queue(line), starts, line.first_spots, used, cut, unread, waiting - self.left.keys())

    def of_queue(self, line: Timeline) -> list[Candidate]:
        """The jobs of the queue that have started, in that order; not those that ran, nor those that came."""
        return [job for job in line.started if job.number not in self.left and job.number <= NEW]


def all_of(numbers: Collection[int]) -> Wanted:
    """Wanted is that these have started."""
    return lambda line: all(number in line.first_starts for number in numbers)


def look_ahead(
    draining: Draining,
    wanted: Collection[int],
    *,
    first: Drained | None = None,
    runs: int = RUNS,
    passes: int = PASSES,
) -> dict[int, Outlook]:
    """When each wanted waiting job may be expected to start, and who starts before it.

    The first run tells the order, those after it the range. There are fewer of them where one takes many passes.
    Of a job that did not start in the first run no start is told: it stands behind those that did.
    """
    first = first or draining.run(None, all_of(wanted), passes)
    found = [first]
    luck = random.Random(0)  # noqa: S311 - no secret: the same question gets the same answer
    while len(found) < runs and first.passes * (len(found) + 1) <= passes and not draining.over():
        run = draining.run(luck, all_of(wanted), passes, len(found))
        if draining.over():
            break  # it was cut off, and would say that jobs never start
        found.append(run)
    order = _order(draining, first)
    places = {job.number: place for place, job in enumerate(order)}
    outlooks = {}
    for number in wanted:
        behind = number not in places
        starts = sorted(math.inf if behind else one.starts.get(number, math.inf) for one in found)
        start, low, high = (starts[round(share * (len(starts) - 1))] for share in (0.5, 0.1, 0.9))
        lasts = draining.lasts.get(number) if math.isfinite(start) else None
        outlooks[number] = Outlook(
            tuple(order[: places.get(number)]),
            _finite(start),
            low if math.isfinite(low) else 0.0,
            _finite(high),
            None if lasts is None else _finite(start + lasts.p50_seconds),
            first.spots.get(number),
            behind and first.further(number),
        )
    return outlooks


def _order(draining: Draining, first: Drained) -> Sequence[Candidate]:
    """Who starts before whom; of a queue that was not read whole those that have started."""
    if draining.kept is not None:
        return first.order
    return sorted(
        draining.situation.queue, key=lambda job: (first.starts.get(job.number, math.inf), -job.priority, job.number)
    )


def _finite(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) else None
