"""When jobs will start: the queue drained by the planner in simulated time, a few times with different luck. Pure."""

import math
import random
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from stoker.jobs.estimates import Known
from stoker.jobs.fit import Spot
from stoker.jobs.forecast import Duration
from stoker.jobs.placement import Rule
from stoker.jobs.situation import Candidate, Situation
from stoker.jobs.timeline import Timeline

RUNS = 9  # odd: the middle one is the estimate
PASSES = 400  # of the planner, for all runs together
GRAIN = 0.02  # what happens within so great a part of the time since now is planned for at once
BUDGET_SECONDS = 1.0  # of thinking; what has not started by then has no estimate


@dataclass(frozen=True, slots=True)
class Outlook:
    """When a job may be expected to start and to end, in seconds from now; None: too far away to tell."""

    ahead: tuple[Candidate, ...]  # who starts before it
    start_seconds: float | None
    start_low_seconds: float  # one start of ten is earlier
    start_high_seconds: float | None  # one of ten is later
    end_seconds: float | None
    spot: Spot | None  # where

    @property
    def position(self) -> int:
        """1: the next to start."""
        return len(self.ahead) + 1


@dataclass(frozen=True, slots=True)
class Drained:
    """One run: seconds to each start, and where it was."""

    starts: Mapping[int, float]
    spots: Mapping[int, Spot]
    passes: int


@dataclass(frozen=True)
class Draining:
    """What a queue is drained with."""

    situation: Situation
    rule: Rule
    lasts: Mapping[int, Duration]  # of the waiting jobs
    left: Mapping[int, Duration]  # of the running ones
    clock: Callable[[], float] = time.monotonic
    budget_seconds: float = BUDGET_SECONDS
    started: float = field(init=False)

    def __post_init__(self) -> None:
        """Start the clock."""
        object.__setattr__(self, "started", self.clock())

    @property
    def over(self) -> bool:
        """Whether enough time was spent."""
        return self.clock() - self.started > self.budget_seconds

    def run(self, luck: random.Random | None, wanted: Collection[int], passes: int) -> Drained:
        """Drain until the wanted jobs have started. Without luck every job takes the middle of what it may take."""
        shares = {number: 0.5 if luck is None else luck.random() for number in [*self.lasts, *self.left]}

        def lasts(job: Candidate, _: str) -> float:
            return self.lasts[job.number].quantile(shares[job.number]) if job.number in self.lasts else 3600.0

        now = self.situation.now
        situation = replace(
            self.situation,
            queue=[replace(job, more=False) for job in self.situation.queue],
            estimates=Known(self.lasts, self.left, now),
        )
        left = {number: duration.quantile(shares[number]) for number, duration in self.left.items()}
        line = Timeline(situation, self.rule, lasts, left=left)
        line.plan()
        used = 1
        while used < passes and any(number not in line.first_starts for number in wanted) and not self.over:
            if not line.step(GRAIN * (line.now - now)):
                break
            used += 1
        return Drained({number: at - now for number, at in line.first_starts.items()}, line.first_spots, used)


def look_ahead(
    draining: Draining, wanted: Collection[int], *, runs: int = RUNS, passes: int = PASSES
) -> dict[int, Outlook]:
    """When each wanted waiting job may be expected to start, and who starts before it.

    The first run tells the order, those after it the range. There are fewer of them where one takes many passes.
    """
    first = draining.run(None, wanted, passes)
    found = [first]
    luck = random.Random(0)  # noqa: S311 - no secret: the same question gets the same answer
    while len(found) < runs and first.passes * (len(found) + 1) <= passes and not draining.over:
        found.append(draining.run(luck, wanted, passes))
    order = sorted(
        draining.situation.queue, key=lambda job: (first.starts.get(job.number, math.inf), -job.priority, job.number)
    )
    places = {job.number: place for place, job in enumerate(order)}
    outlooks = {}
    for number in wanted:
        starts = sorted(one.starts.get(number, math.inf) for one in found)
        start, low, high = (starts[round(share * (len(starts) - 1))] for share in (0.5, 0.1, 0.9))
        lasts = draining.lasts.get(number)
        outlooks[number] = Outlook(
            tuple(order[: places[number]]),
            _finite(start),
            low if math.isfinite(low) else 0.0,
            _finite(high),
            None if lasts is None else _finite(start + lasts.p50_seconds),
            first.spots.get(number),
        )
    return outlooks


def _finite(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) else None
