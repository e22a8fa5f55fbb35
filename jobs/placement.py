"""Which worker, and which of its devices: where what is left stays most useful. Pure.

``Board`` is the one place where this is decided: for the dispatcher, for `why` and `plan`, and for simulations.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter
from typing import Protocol

from stoker.jobs.fit import WHOLE, Demand, Node, Spot, Unit, devices_for, fits
from stoker.jobs.mix import Mix, Shape, shape_of
from stoker.jobs.worth import IN_USE, Weights, Worth

Kind = tuple[str, int, int]  # model, memory in bytes, thousandths offered: devices of one kind are alike
State = tuple[tuple[Kind, ...], tuple[tuple[int, ...], ...], int]  # kinds, levels, free CPUs
Share = tuple[int, int]  # of a device: its kind, as an index into View.kinds, and its free thousandths before
Rating = tuple[float, tuple[Share, ...]]  # the higher, the better; and the devices to take
NO_UNITS = 10**12


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A worker as the rules look at it: which of its devices is which does not matter."""

    node: Node
    kinds: tuple[Kind, ...]
    levels: tuple[tuple[int, ...], ...]  # of each kind, the free thousandths of its devices, ascending
    gaps: tuple[int, ...]  # of all devices, the most free first
    ratings: "dict[int, Rating]"  # by the number that the board gave to a request; shared by workers in one state

    @classmethod
    def of(cls, node: Node, ratings: "dict[State, dict[int, Rating]]") -> "View":
        """Look at a worker; ``ratings`` are those of every state that was met."""
        found: dict[Kind, list[int]] = {}
        for unit in node.units:
            found.setdefault((unit.model, unit.memory_bytes, unit.capacity_milli), []).append(unit.free_milli)
        kinds = tuple(sorted(found, key=itemgetter(1, 0, 2)))  # the least memory first
        levels = tuple(tuple(sorted(found[kind])) for kind in kinds)
        gaps = sorted((unit.free_milli * WHOLE // unit.capacity_milli for unit in node.units), reverse=True)
        state = (kinds, levels, node.cpus_free_milli)
        return cls(node, kinds, levels, tuple(gaps), ratings.setdefault(state, {}))

    def may_fit(self, demand: Demand) -> bool:
        """A glance at the devices: False only where the job does not fit, at a tenth of the cost of ``fits``."""
        return len(self.gaps) >= demand.gpus and (demand.gpu_milli < WHOLE or self.gaps[demand.gpus - 1] >= WHOLE)

    def ways(self, demand: Demand) -> list[tuple[Share, ...]]:
        """The ways to take the devices of a job that fits: one device of each sort, or the tightest several."""
        open_shares = [
            (place, level)
            for place, (model, memory, capacity) in enumerate(self.kinds)
            if demand.suits(model, memory)
            for level in self.levels[place]
            if level >= demand.takes(capacity)
        ]
        if demand.gpus == 1:
            return [(share,) for share in dict.fromkeys(open_shares)]
        return [tuple(open_shares[: demand.gpus])]

    def levels_after(self, demand: Demand, way: tuple[Share, ...]) -> tuple[tuple[int, ...], ...]:
        """The free thousandths of each kind once the job runs here too."""
        if not way:
            return self.levels
        left = [list(levels) for levels in self.levels]
        for kind, level in way:
            left[kind].remove(level)
            left[kind].append(level - demand.takes(self.kinds[kind][2]))
        return tuple(tuple(sorted(levels)) for levels in left)

    def units(self, way: tuple[Share, ...]) -> tuple[int, ...]:
        """The ids of the devices: of equal ones the first."""
        left: list[Unit] = sorted(self.node.units, key=lambda unit: unit.id)
        chosen = []
        for kind, level in way:
            sort = (*self.kinds[kind], level)
            unit = next(u for u in left if (u.model, u.memory_bytes, u.capacity_milli, u.free_milli) == sort)
            left.remove(unit)
            chosen.append(unit.id)
        return tuple(chosen)


class Rule(Protocol):
    """Rates the best way in which a job that fits could run on a worker: the higher, the better."""

    def rate(self, demand: Demand, view: View, device: str) -> Rating:
        """Rate one worker."""


class LeastLoss:
    """The rule in use: place a job where the worth of what stays free falls least.

    It remembers what it worked out, so one that is kept between passes is faster; it decides the same.
    """

    def __init__(self, mix: Mix | None = None, weights: Weights = IN_USE) -> None:
        self.mix = Mix.of({}) if mix is None else mix
        self._weights = weights
        self._worths: dict[Kind, Worth] = {}

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
            worth = self._worths.get(kind)
            if worth is None:
                worth = self._worths[kind] = Worth(self.mix, *kind[:2], self._weights)
            total += worth(free, cpus_milli)
        return total


Ranked = tuple[float, int, int, tuple[Share, ...]]  # minus the rating, then what breaks ties
STATES_KEPT = 5000  # of up to 10 kB


class Board:
    """The workers as they are now, and for each demand asked for so far the rating of each worker that fits.

    After a change only the worker that changed is rated again, when that demand is next asked for.
    """

    def __init__(self, nodes: Iterable[Node], rule: Rule) -> None:
        self._rule = rule
        self._ratings: dict[State, dict[int, Rating]] = {}
        self._views = {node.id: View.of(node, self._ratings) for node in sorted(nodes, key=lambda node: node.id)}
        self._changed: list[int] = []
        self._ranked: dict[tuple[Demand, str], tuple[int, dict[int, Ranked]]] = {}
        self._requests: dict[tuple[Shape, str], int] = {}  # numbered: small keys for what is rated
        self._devices: dict[Demand, tuple[str, ...]] = {}

    @property
    def nodes(self) -> list[Node]:
        """The workers, by id."""
        return [view.node for view in self._views.values()]

    def choose(self, demand: Demand) -> Spot | None:
        """The best place for a job now; None when it fits nowhere."""
        if demand not in self._devices:
            self._devices[demand] = devices_for(demand, (view.node for view in self._views.values()))
        for device in self._devices[demand]:
            ranked = self._rank(demand, device)
            if ranked:
                _, _, node, way = min(ranked.values())
                return Spot(node, device, self._views[node].units(way))
        return None

    def place(self, demand: Demand, spot: Spot) -> None:
        """Let a job run there."""
        self._update(self._views[spot.node].node.after(demand, spot))

    def leave(self, demand: Demand, spot: Spot) -> None:
        """Let a job that runs there leave."""
        self._update(self._views[spot.node].node.without(demand, spot))

    def follow(self, rule: Rule) -> None:
        """Rate by another rule from now on."""
        self._rule = rule
        self._ranked.clear()
        self._changed.clear()
        self._ratings.clear()
        self._views = {view.node.id: View.of(view.node, self._ratings) for view in self._views.values()}

    def _update(self, node: Node) -> None:
        if len(self._ratings) > STATES_KEPT:
            self._ratings.clear()  # views keep theirs
        self._views[node.id] = View.of(node, self._ratings)
        self._changed.append(node.id)

    def _rank(self, demand: Demand, device: str) -> dict[int, Ranked]:
        """The workers that fit, ranked; those that changed since the last call are looked at, no others."""
        seen, ranked = self._ranked.get((demand, device), (None, {}))
        stale = self._views if seen is None else dict.fromkeys(self._changed[seen:])
        request = self._requests.setdefault((shape_of(demand), device), len(self._requests))
        for number in stale:
            view = self._views[number]
            if (device == "cpu" or view.may_fit(demand)) and fits(demand, view.node, device):
                if request not in view.ratings:
                    view.ratings[request] = self._rule.rate(demand, view, device)
                rating, way = view.ratings[request]
                tightness = NO_UNITS if view.kinds else view.node.cpus_free_milli  # jobs for CPUs keep off GPUs
                ranked[number] = (-rating, tightness, number, way)
            else:
                ranked.pop(number, None)
        self._ranked[demand, device] = (len(self._changed), ranked)
        return ranked
