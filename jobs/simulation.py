"""How full a fleet gets: jobs arrive one by one, none leaves, each is placed at once or rejected.

The protocol of "Beware of Fragmentation" (Weng et al., USENIX ATC 2023): the tasks of a trace with random repeats, in
random order, until what they ask for reaches ``load`` times the fleet's GPUs. A policy sees each task when it arrives,
and nothing else: not the seed, not the files, not what comes.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from stoker.errors import InvalidInput
from stoker.jobs.baselines import Anywhere, BestFit, Fragmentation
from stoker.jobs.fit import WHOLE, Demand, Node, Spot
from stoker.jobs.mix import MOVED, Arrivals, Mix, shape_of
from stoker.jobs.placement import Board, LeastLoss, Rule

LOOK_EVERY = 25  # arrivals; how often a policy that learns looks whether the mix has moved
POLICIES = ("prices", "fgd", "best-fit", "random")


class Policy(Protocol):
    """What decides: the dispatcher's own board, or something to compare it with."""

    def choose(self, demand: Demand) -> Spot | None:
        """Choose a place, or None."""

    def place(self, demand: Demand, spot: Spot) -> None:
        """Let a job run there."""


class Learning:
    """A board whose rule follows the mix of what arrived so far."""

    def __init__(self, nodes: Sequence[Node], rule: Callable[[Mix], Rule], history: Sequence[Demand]) -> None:
        self._rule = rule
        self._arrivals = Arrivals(map(shape_of, history))
        self._mix = self._arrivals.mix()
        self._board = Board(nodes, rule(self._mix))
        self.place = self._board.place

    def choose(self, demand: Demand) -> Spot | None:
        """Count the arrival, learn when it is time, choose."""
        self._arrivals.add(shape_of(demand))
        if self._arrivals.count % LOOK_EVERY == 0:
            mix = self._arrivals.mix()
            if mix.distance(self._mix) > MOVED:
                self._mix = mix
                self._board.follow(self._rule(mix))
        return self._board.choose(demand)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a simulation."""

    gpu_allocated_percent: float
    arrived: int
    rejected: int
    seconds: float  # of deciding


def make_policy(name: str, nodes: Sequence[Node], history: Sequence[Demand] = ()) -> Policy:
    """Make one of ``POLICIES`` for an idle fleet; ``history`` is a mix of shapes, its order does not matter."""
    if name == "prices":
        return Learning(nodes, LeastLoss, history)
    if name == "fgd":
        return Learning(_renumbered(nodes), Fragmentation, history)
    return Board(nodes, BestFit(nodes)) if name == "best-fit" else Anywhere(nodes)


def _renumbered(nodes: Sequence[Node]) -> list[Node]:
    """The fleet in one fixed random order: in a file like workers stand together, and rounded scores tie often."""
    order = random.Random(0).sample(range(len(nodes)), len(nodes))  # noqa: S311 - no secret
    return [replace(node, id=place) for node, place in zip(nodes, order, strict=True)]


def asked(demand: Demand) -> int:
    """Thousandths of devices that a task asks for."""
    return demand.gpus * min(demand.gpu_milli, WHOLE) if demand.device == "gpu" else 0


def capacity(nodes: Sequence[Node]) -> int:
    """Thousandths of devices that a fleet has."""
    return sum(unit.capacity_milli for node in nodes for unit in node.units)


def arrivals(tasks: Sequence[Demand], milli: int, load: float, seed: int) -> list[Demand]:
    """The tasks in a random order, with random repeats, or cut, until they ask for ``load`` times ``milli``.

    Raises InvalidInput: no task asks for a device, so that no load is ever reached.
    """
    total = sum(map(asked, tasks))
    if not total:
        raise InvalidInput("tasks", "none asks for a GPU", "give at least one with num_gpu of 1 or more")
    chance = random.Random(seed)  # noqa: S311 - no secret
    if total >= load * milli:
        return _cut(chance.sample(tasks, len(tasks)), load * milli)
    order = list(tasks)
    while total < load * milli:
        order.append(chance.choice(tasks))
        total += asked(order[-1])
    chance.shuffle(order)
    return order


def _cut(order: list[Demand], milli: float) -> list[Demand]:
    reached = 0
    for place, demand in enumerate(order):
        if reached >= milli:
            return order[:place]
        reached += asked(demand)
    return order


def simulate(nodes: Sequence[Node], order: Sequence[Demand], policy: Policy) -> Outcome:
    """Let tasks arrive in this order.

    Raises InvalidInput: the fleet has no device.
    """
    milli = capacity(nodes)
    if not milli:
        raise InvalidInput("nodes", "none has a GPU", "give at least one with gpu of 1 or more")
    allocated = rejected = 0
    started = time.perf_counter()
    for demand in order:
        spot = policy.choose(demand)
        if spot is None:
            rejected += 1
        else:
            policy.place(demand, spot)
            allocated += asked(demand)
    return Outcome(100 * allocated / milli, len(order), rejected, time.perf_counter() - started)
