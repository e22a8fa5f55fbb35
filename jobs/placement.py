"""Which worker, and which of its devices: where what is left stays most useful. Pure.

``Board`` is the one place where this is decided: for the dispatcher, for `why` and `plan`, and for simulations.
"""

import math
from bisect import insort
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter, itemgetter
from typing import Protocol

from stoker.jobs.fit import Demand, Node, Spot, devices_for, fits, kinds_of
from stoker.jobs.mix import Mix, Shape, shape_of
from stoker.jobs.views import Kind, Rating, Share, State, View
from stoker.jobs.worth import IN_USE, Weights, Worth

NO_UNITS = 10**12
STATES_KEPT = 5000  # of up to 10 kB


class Memory:
    """What a rule has worked out, by the state of a worker and the number of a request."""

    def __init__(self) -> None:
        self.ratings: dict[State, dict[int, Rating]] = {}
        self._requests: dict[tuple[Shape, int | None, str], int] = {}

    def request(self, demand: Demand, device: str) -> int:
        """A small key for what is rated."""
        return self._requests.setdefault((shape_of(demand), demand.team, device), len(self._requests))

    def trim(self) -> None:
        """Forget all when it is too much; views keep what is theirs."""
        if len(self.ratings) > STATES_KEPT:
            self.ratings.clear()


class Rule(Protocol):
    """Rates the best way in which a job that fits could run on a worker: the higher, the better."""

    memory: Memory

    def rate(self, demand: Demand, view: View, device: str) -> Rating:
        """Rate one worker."""


class LeastLoss:
    """The rule in use: place a job where the worth of what stays free falls least.

    It remembers what it worked out, so one that is kept between passes is faster; it decides the same.
    """

    def __init__(self, mix: Mix | None = None, weights: Weights = IN_USE) -> None:
        self.mix = Mix.of({}) if mix is None else mix
        self.memory = Memory()
        self._weights = weights
        self._worths: dict[tuple[str, int], Worth] = {}  # by model and memory

    def rate(self, demand: Demand, view: View, device: str) -> Rating:
        """Rate by the change in worth, about ten per thousandth of a device."""
        cpus = view.node.cpus_free_milli - demand.cpus_milli
        before = self.worth(view.kinds, view.levels, view.node.cpus_free_milli)
        rated = [
            (round(self.worth(view.kinds, view.levels_after(demand, way), cpus) - before, 3), way)  # real ties are ties
            for way in (view.ways(demand) if device == "gpu" else [()])
        ]
        return max(rated, key=itemgetter(0))  # the first of equal ones

    def worth(self, kinds: tuple[Kind, ...], levels: tuple[tuple[int, ...], ...], cpus_milli: int) -> float:
        """The worth of free devices beside so many free CPUs; each kind for itself."""
        total = 0.0
        for kind, free in zip(kinds, levels, strict=True):
            worth = self._worths.get(kind[:2])
            if worth is None:
                worth = self._worths[kind[:2]] = Worth(self.mix, *kind[:2], self._weights)
            total += worth(free, cpus_milli)
        return total


Look = tuple[object, ...]  # all of a worker that a rule or a condition looks at
Ranked = tuple[float, int, tuple[Share, ...]]  # minus the rating, then what breaks ties
AFFINITY = 500.0  # worth given up for a worker that has the job's data at hand: a twentieth of a device


def look_of(node: Node) -> Look:
    """Workers that look alike are decided about once."""
    units = [(u.model, u.memory_bytes, u.capacity_milli, u.free_milli, u.team or 0) for u in node.units]
    if len(units) > 1:
        units.sort()
    free = (node.cpus_free_milli, node.memory_free_bytes, node.attempts_free > 0)
    return (node.pool, node.cpu_model, node.fractions, *free, *units)


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """The workers that look alike, by id, ascending; when the last has changed, it is never used again."""

    look: Look
    view: View
    members: list[int]


class Board:
    """The workers as they are now, and for each demand asked for so far the rating of each look that fits.

    After a change only looks that are new are rated, when that demand is next asked for.
    """

    def __init__(self, nodes: Iterable[Node], rule: Rule) -> None:
        self._rule = rule
        self._nodes = {node.id: node for node in sorted(nodes, key=attrgetter("id"))}
        self._group_of: dict[int, Group] = {}  # groups stand for looks: a look is a deep tuple, slow to hash
        self._groups: dict[Look, Group] = {}
        self._new: list[Group] = []  # in the order in which they came up
        self._ranked: dict[tuple[Demand, str], tuple[int, dict[Group, Ranked]]] = {}
        self._devices: dict[Demand, tuple[str, ...]] = {}
        self._with_data: dict[str, list[int]] = {}
        for node in self._nodes.values():
            self._join(node)
            for data in node.data:
                self._with_data.setdefault(data, []).append(node.id)

    @property
    def nodes(self) -> list[Node]:
        """The workers, by id."""
        return list(self._nodes.values())

    @cached_property
    def kinds(self) -> list[Node]:
        """One worker of each kind, emptied."""
        return kinds_of(self._nodes.values())

    @property
    def looks(self) -> list[Node]:
        """One worker of each look: the first."""
        return [self._nodes[group.members[0]] for group in self._groups.values()]

    def node(self, number: int) -> Node | None:
        """One worker as it is now."""
        return self._nodes.get(number)

    def devices(self, demand: Demand) -> tuple[str, ...]:
        """On what a job may run in this fleet, best first."""
        if demand not in self._devices:
            self._devices[demand] = devices_for(demand, self.kinds)
        return self._devices[demand]

    def choose(self, demand: Demand, data: str | None = None) -> Spot | None:
        """The best place for a job now, on whatever device it may run; None when it fits nowhere."""
        found = (self.choose_on(device, demand, data) for device in self.devices(demand))
        return next((spot for spot in found if spot is not None), None)

    def choose_on(
        self, device: str, demand: Demand, data: str | None = None, pools: Collection[str] | None = None
    ) -> Spot | None:
        """The best place for a job on this device now, in one of these pools."""
        best: tuple[float, int, int, Group] | None = None
        least = math.inf
        ranked = self._rank(demand, device)
        for group, (rating, tightness, _) in ranked.items():
            if rating > least or (pools is not None and group.view.node.pool not in pools):
                continue
            if best is None or (rating, tightness, group.members[0]) < best[:3]:
                best, least = (rating, tightness, group.members[0], group), rating
        if best is None:
            return None
        near = self._beside(data, ranked, best[0], pools) if data in self._with_data else None
        group, number = near or (best[3], best[2])
        return Spot(number, device, group.view.units(ranked[group][2], self._nodes[number]))

    def _beside(
        self, data: str | None, ranked: dict[Group, Ranked], best: float, pools: Collection[str] | None
    ) -> tuple[Group, int] | None:
        """The best of the workers that have the data, if it is not much worse than the best of all."""
        found = [
            (*ranked[group][:2], number, group)
            for number in self._with_data[data or ""]
            if (group := self._group_of[number]) in ranked
            and ranked[group][0] <= best + AFFINITY
            and (pools is None or self._nodes[number].pool in pools)
        ]
        return (found[0][3], found[0][2]) if found and found.sort(key=itemgetter(0, 1, 2)) is None else None

    def place(self, demand: Demand, spot: Spot) -> None:
        """Let a job run there."""
        self.update(self._nodes[spot.node].after(demand, spot))

    def leave(self, demand: Demand, spot: Spot) -> None:
        """Let a job that runs there leave."""
        self.update(self._nodes[spot.node].without(demand, spot))

    def follow(self, rule: Rule) -> None:
        """Rate by another rule from now on."""
        self._rule = rule
        self._ranked.clear()
        self._groups.clear()
        self._new.clear()
        for node in self._nodes.values():
            self._join(node)

    def update(self, node: Node) -> None:
        """A worker is now like this."""
        group = self._group_of[node.id]
        group.members.remove(node.id)
        if not group.members:
            del self._groups[group.look]
        self._nodes[node.id] = node
        self._join(node)

    def _join(self, node: Node) -> None:
        look = look_of(node)
        group = self._groups.get(look)
        if group is None:
            group = self._groups[look] = Group(look, View.of(node, self._rule.memory.ratings), [])
            self._new.append(group)
            self._rule.memory.trim()
        self._group_of[node.id] = group
        insort(group.members, node.id)

    def _rank(self, demand: Demand, device: str) -> dict[Group, Ranked]:
        """The looks that fit, ranked; those that are new since the last call are looked at, no others."""
        seen, ranked = self._ranked.get((demand, device), (0, {}))
        request = self._rule.memory.request(demand, device)
        for group in [group for group in ranked if not group.members]:
            del ranked[group]
        for group in self._new[seen:]:
            view = group.view
            if group.members and (device == "cpu" or view.may_fit(demand)) and fits(demand, view.node, device):
                if request not in view.ratings:
                    view.ratings[request] = self._rule.rate(demand, view, device)
                rating, way = view.ratings[request]
                tightness = NO_UNITS if view.kinds else view.node.cpus_free_milli  # jobs for CPUs keep off GPUs
                ranked[group] = (-rating, tightness, way)
        self._ranked[demand, device] = (len(self._new), ranked)
        return ranked
