"""What the free devices of a worker are still worth to the jobs to come.

    worth =  PRICE · Σ over devices of what requests can still pay for the free part       (stoker.jobs.prices)
           - STARVED · the free thousandths that the worker's CPUs cannot feed, at the CPUs per GPU of the mix
             (· the share of the GPU demand for one at a time · the share of the CPU demand from jobs for GPUs)
           + Σ over shapes of share · thousandths that the shape can use here · how far the CPUs cover them

The last line alone, without cover, is the fragmentation gradient of "Beware of Fragmentation" (Weng et al., USENIX
ATC 2023). A placement costs what its worker's worth falls by; the one that costs least is best.
"""

from array import array
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

from stoker.jobs.fit import WHOLE
from stoker.jobs.mix import Mix, Shape
from stoker.jobs.prices import residual_values, size_prices

CURVES_KEPT = 4096  # of 2 to 5 kB


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each part counts, in thousandths of a device. The defaults held on every mix that was tried."""

    price: float = 10.0
    starved: float = 3.0
    cover: float = 0.5  # 0: a shape either fits on the worker's CPUs or not; 1: each of its copies counts
    slack: float = 1.2  # copies that the CPUs need not cover, as a factor: some jobs ask for few


IN_USE = Weights()
FRAGMENTATION_ONLY = Weights(price=0.0, starved=0.0, cover=0.0)


class Curve(NamedTuple):
    """What some devices are worth as a function of the free CPUs beside them: pieces of lines."""

    price: float
    free: float  # thousandths, of all devices
    starts: "array[float]"  # where a piece begins, in thousandths of a CPU, ascending
    heights: "array[float]"
    slopes: "array[float]"


class Worth:
    """The worth of free devices of one kind beside free CPUs."""

    def __init__(self, mix: Mix, model: str, memory_bytes: int, weights: Weights) -> None:
        shares = {shape: share for shape, share in mix.shares.items() if _runs(shape, model, memory_bytes)}
        self._weights = weights
        self._curves: dict[tuple[int, ...], Curve] = {}
        self._needs: dict[tuple[int, int], list[tuple[int, float]]] = defaultdict(list)
        sizes: dict[int, float] = defaultdict(float)
        cpus = thousandths = single = 0.0
        for shape, share in shares.items():
            self._needs[shape.gpus, shape.gpu_milli].append((shape.cpus_milli, share))
            sizes[shape.gpu_milli] += share  # a request for several counts once: measured, no gain in more
            cpus += share * shape.cpus_milli
            thousandths += share * shape.gpus * shape.gpu_milli
            single += share * shape.gpu_milli if shape.gpus == 1 else 0.0
        beside = sum(share * shape.cpus_milli for shape, share in mix.shares.items() if not shape.gpus)
        self._cpus_each = cpus / thousandths if thousandths else 0.0
        # GPUs wanted together do not starve one by one, and CPUs that jobs for CPUs take are not the GPUs' to lose:
        # without this, mixes for several GPUs or with many jobs for CPUs fell up to 1.2 points below FGD
        self._starved = weights.starved * single / thousandths * cpus / (cpus + beside) if cpus else 0.0
        # the square prefers, of equal prices, the tighter device
        values = residual_values(size_prices(sizes)) if weights.price else [0.0] * 1001
        self._values = [weights.price * (WHOLE * value + (milli / WHOLE) ** 2) for milli, value in enumerate(values)]

    def __call__(self, levels: tuple[int, ...], cpus_milli: int) -> float:
        """The worth of devices with ``levels`` thousandths free, ascending, beside so many free CPUs."""
        curve = self._curves.get(levels)
        if curve is None:
            curve = self._remember(levels)
        price, free, starts, heights, slopes = curve
        place = bisect_right(starts, cpus_milli) - 1
        worth = price + heights[place] + slopes[place] * cpus_milli
        if self._starved:
            starved = free - cpus_milli / self._cpus_each
            if starved > 0:
                worth -= self._starved * starved
        return worth

    def _remember(self, levels: tuple[int, ...]) -> Curve:
        if len(self._curves) >= CURVES_KEPT:
            self._curves.clear()
        price = sum(self._values[min(level, WHOLE)] for level in levels)
        curve = self._curves[levels] = Curve(price, float(sum(levels)), *_accumulated(self._usable(levels)))
        return curve

    def _usable(self, levels: tuple[int, ...]) -> list[tuple[float, float, float]]:
        """What the mix can use of devices: from so many free CPUs on, so much more height and slope."""
        changes: list[tuple[float, float, float]] = [(-1.0, 0.0, 0.0)]
        cover, slack = self._weights.cover, self._weights.slack
        for (gpus, milli), needs in self._needs.items():
            fitting = [level for level in levels if level >= milli]
            if len(fitting) < gpus:
                continue
            usable = sum(fitting)
            copies = max(1, sum(level // milli for level in fitting) // gpus)
            for cpus, share in needs:
                height, covered_at = share * usable, cpus * copies / slack
                if not cover or covered_at <= cpus:
                    changes.append((cpus, height, 0.0))
                else:
                    slope = height * cover / covered_at
                    changes.append((cpus, height * (1 - cover), slope))
                    changes.append((covered_at, height * cover, -slope))
        return changes


def _accumulated(changes: list[tuple[float, float, float]]) -> tuple["array[float]", "array[float]", "array[float]"]:
    starts, heights, slopes = array("d"), array("d"), array("d")
    height = slope = 0.0
    for start, rise, turn in sorted(changes):
        height += rise
        slope += turn
        if starts and starts[-1] == start:
            heights[-1], slopes[-1] = height, slope
        else:
            starts.append(start)
            heights.append(height)
            slopes.append(slope)
    return starts, heights, slopes


def _runs(shape: Shape, model: str, memory_bytes: int) -> bool:
    right = not shape.gpu_types or model in shape.gpu_types
    return shape.gpus > 0 and right and memory_bytes >= shape.gpu_memory_bytes
