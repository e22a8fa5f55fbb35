"""Known rules of placement, to compare with: fragmentation gradient descent, best fit, any worker that fits."""

import math
import random
from collections.abc import Sequence

from stoker.jobs.fit import Demand, Node, Spot, fits, open_units
from stoker.jobs.mix import Mix
from stoker.jobs.placement import LeastLoss, Memory
from stoker.jobs.views import Rating, View
from stoker.jobs.worth import FRAGMENTATION_ONLY


class Fragmentation:
    """FGD: least growth of the GPU capacity that a typical job cannot use, as a score of 0 to 100.

    Source: Weng et al., "Beware of Fragmentation" (USENIX ATC 2023), with its rounding.
    """

    def __init__(self, mix: Mix) -> None:
        self.memory = Memory()
        self._usable = LeastLoss(mix, FRAGMENTATION_ONLY)

    def rate(self, demand: Demand, view: View, device: str) -> Rating:
        """Rate one worker."""
        gain, way = self._usable.rate(demand, view, device)
        fragmented = -gain - (demand.gpus * demand.gpu_milli if device == "gpu" else 0)
        return math.floor(100 / (1 + math.exp(fragmented / 1000))), way


class BestFit:
    """The worker with the least left, CPUs and GPUs each as a share of the largest worker's."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.memory = Memory()
        self._cpus = max([1, *(node.cpus_milli for node in nodes)])
        self._milli = max([1, *(sum(unit.capacity_milli for unit in node.units) for node in nodes)])

    def rate(self, demand: Demand, view: View, device: str) -> Rating:
        """Rate one worker, and take its tightest devices."""
        free = sum(sum(levels) for levels in view.levels)
        way = view.ways(demand)[0] if device == "gpu" else ()
        return -(view.node.cpus_free_milli / self._cpus + free / self._milli), way


class Anywhere:
    """Any worker that fits, all equally likely, and its first devices."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = {node.id: node for node in nodes}
        self._random = random.Random(0)  # noqa: S311 - no secret

    def choose(self, demand: Demand) -> Spot | None:
        """Choose a place; None when a job fits nowhere."""
        for number in self._random.sample(sorted(self._nodes), len(self._nodes)):
            if fits(demand, self._nodes[number], demand.device):
                units = open_units(demand, self._nodes[number])[: demand.gpus] if demand.device == "gpu" else []
                return Spot(number, demand.device, tuple(unit.id for unit in units))
        return None

    def place(self, demand: Demand, spot: Spot) -> None:
        """Let a job run there."""
        self._nodes[spot.node] = self._nodes[spot.node].after(demand, spot)
