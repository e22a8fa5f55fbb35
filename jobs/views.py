"""A worker as the rules of placement look at it. Pure."""

from dataclasses import dataclass
from operator import itemgetter

from stoker.jobs.fit import WHOLE, Demand, Node, Unit

Kind = tuple[str, int, int, int]  # model, memory in bytes, thousandths offered, the team that shares it (0: none)
State = tuple[tuple[Kind, ...], tuple[tuple[int, ...], ...], int]  # kinds, levels, free CPUs
Share = tuple[int, int]  # of a device: its kind, as an index into View.kinds, and its free thousandths before
Rating = tuple[float, tuple[Share, ...]]  # the higher, the better; and the devices to take


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A worker as the rules look at it: which of its devices is which does not matter."""

    node: Node
    kinds: tuple[Kind, ...]
    levels: tuple[tuple[int, ...], ...]  # of each kind, the free thousandths of its devices, ascending
    devices: int
    whole: int  # how many devices are free as a whole
    ratings: "dict[int, Rating]"  # by the number that the board gave to a request; shared by workers in one state

    @classmethod
    def of(cls, node: Node, ratings: "dict[State, dict[int, Rating]]") -> "View":
        """Look at a worker; ``ratings`` are those of every state that was met."""
        found: dict[Kind, list[int]] = {}
        for unit in node.units:
            kind = (unit.model, unit.memory_bytes, unit.capacity_milli, unit.team or 0)
            found.setdefault(kind, []).append(unit.free_milli)
        kinds = tuple(sorted(found, key=itemgetter(1, 0, 2, 3)))  # the least memory first
        levels = tuple(tuple(sorted(found[kind])) for kind in kinds)
        gaps = [unit.free_milli * WHOLE // unit.capacity_milli for unit in node.units]
        state = (kinds, levels, node.cpus_free_milli)
        return cls(node, kinds, levels, len(gaps), gaps.count(WHOLE), ratings.setdefault(state, {}))

    def may_fit(self, demand: Demand) -> bool:
        """A glance at the devices: False only where the job does not fit, at a tenth of the cost of ``fits``."""
        return (self.devices if demand.gpu_milli < WHOLE else self.whole) >= demand.gpus

    def ways(self, demand: Demand) -> list[tuple[Share, ...]]:
        """The ways to take the devices of a job that fits: one device of each sort, or the tightest several."""
        open_shares = [
            (place, level)
            for place, (model, memory, capacity, team) in enumerate(self.kinds)
            if demand.suits(model, memory) and team in (0, demand.team)
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

    def units(self, way: tuple[Share, ...], node: Node) -> tuple[int, ...]:
        """The ids of the devices on a worker that looks like this: of equal ones the first."""
        left: list[Unit] = sorted(node.units, key=lambda unit: unit.id)
        chosen = []
        for kind, level in way:
            sort = (*self.kinds[kind], level)
            unit = next(
                u for u in left if (u.model, u.memory_bytes, u.capacity_milli, u.team or 0, u.free_milli) == sort
            )
            left.remove(unit)
            chosen.append(unit.id)
        return tuple(chosen)
