"""The mix of requests that a fleet serves, learned from the jobs seen."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from stoker.jobs.fit import WHOLE, Demand

HALF_LIFE_JOBS = 2000.0  # after so many arrivals one seen before them counts half
MOST_SHAPES = 128  # the most frequent are looked at; a trace of 8,152 production tasks has 91
PROBE_WEIGHT = 0.02  # jobs; enough to break ties, too little to matter once anything was seen
MOVED = 0.1  # share of the mix that has to change before it is learned anew


@dataclass(frozen=True, slots=True)
class Shape:
    """What two requests have in common when their placement matters alike."""

    cpus_milli: int
    gpus: int  # 0: runs on CPUs
    gpu_milli: int = WHOLE
    gpu_types: tuple[str, ...] = ()
    gpu_memory_bytes: int = 0


def shape_of(demand: Demand) -> Shape:
    """The shape of a request; one that may run on either is counted as one for GPUs."""
    if demand.device == "cpu":
        return Shape(demand.cpus_milli, 0)
    return Shape(demand.cpus_milli, demand.gpus, demand.gpu_milli, demand.gpu_types, demand.gpu_memory_bytes)


# What keeps large gaps whole before anybody asked for one.
PROBES = {Shape(0, count): PROBE_WEIGHT for count in (1, 2, 4, 8)}


@dataclass(frozen=True, slots=True)
class Mix:
    """Shares of shapes: of all requests, more than 0, summing to at most 1."""

    shares: Mapping[Shape, float] = field(default_factory=dict)

    @classmethod
    def of(cls, counts: Mapping[Shape, float]) -> "Mix":
        """Make a mix of counts, which may be empty."""
        weights = {shape: counts.get(shape, 0.0) + weight for shape, weight in PROBES.items()}
        weights |= {shape: count for shape, count in counts.items() if count > 0 and shape not in PROBES}
        total = sum(weights.values())
        frequent = sorted(weights.items(), key=lambda item: (-item[1], repr(item[0])))[:MOST_SHAPES]
        return cls({shape: weight / total for shape, weight in frequent})

    def distance(self, other: "Mix") -> float:
        """The share of requests that would have to change to turn one mix into the other, 0 to 1."""
        shapes = self.shares.keys() | other.shares.keys()
        return sum(abs(self.shares.get(shape, 0.0) - other.shares.get(shape, 0.0)) for shape in shapes) / 2


class Arrivals:
    """Counts what arrives and forgets it slowly."""

    def __init__(self, history: Iterable[Shape] = (), half_life: float = HALF_LIFE_JOBS) -> None:
        self._growth = 2.0 ** (1 / half_life)
        self._weight = 1.0  # of the next arrival: weights grow instead of all counts shrinking
        self._counts: dict[Shape, float] = {}
        for shape in history:
            self._counts[shape] = self._counts.get(shape, 0.0) + 1.0
        self._shrink(min(1.0, 1.44 * half_life / max(1.0, sum(self._counts.values()))))
        self.count = 0

    def add(self, shape: Shape) -> None:
        """Count one arrival."""
        self._counts[shape] = self._counts.get(shape, 0.0) + self._weight
        self._weight *= self._growth
        self.count += 1
        if self._weight > 1e6:
            self._shrink(1 / self._weight)
            self._weight = 1.0

    def _shrink(self, factor: float) -> None:
        self._counts = {shape: count * factor for shape, count in self._counts.items()}

    def mix(self) -> Mix:
        """The mix as it is now."""
        return Mix.of({shape: count / self._weight for shape, count in self._counts.items()})
