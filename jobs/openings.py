"""Where a job could start once others have left, and what has to be kept free for it until then. Pure."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from stoker.jobs.fit import Demand, Node, Spot, fits, open_units
from stoker.jobs.situation import Running


@dataclass(frozen=True, slots=True)
class Opening:
    """A place, and who has to leave before the job can start there."""

    spot: Spot
    leavers: tuple[Running, ...]


@dataclass(frozen=True, slots=True)
class Hold:
    """What is kept free on a worker for the holder of a reservation, of what is free already."""

    cpus_milli: int
    memory_bytes: int
    attempts: int
    units: tuple[tuple[int, int], ...]  # device, thousandths

    def taken(self, node: Node) -> Node:
        """The worker as it is for all others."""
        return self._changed(node, -1)

    def returned(self, node: Node) -> Node:
        """The worker as it is for the holder."""
        return self._changed(node, 1)

    def _changed(self, node: Node, sign: int) -> Node:
        held = dict(self.units)
        return replace(
            node,
            cpus_free_milli=node.cpus_free_milli + sign * self.cpus_milli,
            memory_free_bytes=node.memory_free_bytes + sign * self.memory_bytes,
            attempts_free=node.attempts_free + sign * self.attempts,
            units=tuple(
                replace(unit, free_milli=unit.free_milli + sign * held[unit.id]) if unit.id in held else unit
                for unit in node.units
            ),
        )


def barred(node: Node, units: Collection[int]) -> Node:
    """The worker without the use of these devices; they still count for what kind of machine it is."""
    if not units:
        return node
    return replace(
        node,
        units=tuple(
            replace(unit, free_milli=-2 * unit.capacity_milli) if unit.id in units else unit for unit in node.units
        ),
    )


def opening(demand: Demand, device: str, node: Node, leaving: Iterable[Running]) -> Opening | None:
    """The place that opens first when running jobs leave in this order; None when it does not.

    Args:
        demand: Of the job that wants to start.
        device: ``cpu`` or ``gpu``.
        node: The worker as it is now.
        leaving: Jobs that run there, in the order in which they leave.
    """
    work, leavers = node, list[Running]()
    for running in leaving:
        if fits(demand, work, device):
            break
        work = work.without(running.demand, running.spot)
        leavers.append(running)
    if not fits(demand, work, device):
        return None
    if device != "gpu":
        return Opening(Spot(node.id, device), tuple(leavers))
    now = {unit.id for unit in open_units(demand, node)}
    chosen = sorted(open_units(demand, work), key=lambda unit: (unit.id not in now, unit.free_milli, unit.id))
    return Opening(Spot(node.id, device, tuple(unit.id for unit in chosen[: demand.gpus])), tuple(leavers))


def fewest(demand: Demand, device: str, node: Node, leavers: Sequence[Running]) -> tuple[Running, ...]:
    """Those of the leavers, the last ones first to be spared, without whom the job would not fit."""
    needed = list(leavers)
    for running in reversed(leavers):
        others = [one for one in needed if one is not running]
        work = node
        for other in others:
            work = work.without(other.demand, other.spot)
        if fits(demand, work, device):
            needed = others
    return tuple(needed)


def hold_for(demand: Demand, spot: Spot, node: Node, leavers: Iterable[Running]) -> Hold:
    """What has to be kept free now, so that the job can start when these have left."""
    cpus, memory, attempts = demand.cpus_milli, demand.memory_bytes, 1
    for running in leavers:
        cpus -= running.demand.cpus_milli
        memory -= running.demand.memory_bytes
        attempts -= 1
    return Hold(
        max(0, min(cpus, node.cpus_free_milli)),
        max(0, min(memory, node.memory_free_bytes)),
        max(0, min(attempts, node.attempts_free)),
        tuple(
            (unit.id, min(unit.free_milli, demand.takes(unit.capacity_milli)))
            for unit in node.units
            if unit.id in spot.units
        ),
    )


def can_start(demand: Demand, spot: Spot, node: Node) -> bool:
    """Whether a job can start at the place that was promised to it."""
    others = {unit.id for unit in node.units} - set(spot.units)
    return fits(demand, barred(node, others) if spot.device == "gpu" else node, spot.device)
