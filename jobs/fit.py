"""What a job needs, what a worker has, and whether the one fits on the other. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from stoker.jobs.reasons import Reason

WHOLE = 1000  # thousandths of a device


@dataclass(frozen=True, slots=True)
class Demand:
    """What a job needs of one worker."""

    cpus_milli: int
    memory_bytes: int
    device: str = "auto"  # cpu | gpu | auto
    gpus: int = 1  # devices, when it runs on GPUs
    gpu_memory_bytes: int = 0
    gpu_types: tuple[str, ...] = ()  # models that do; empty: any
    machine: str | None = None  # once it made a step: the only kind of machine on which it goes on exactly
    gpu_milli: int = WHOLE  # of each device; all of it unless less is asked for
    team: int | None = None  # only of one that asks for a part of a device: shared within one team alone

    def takes(self, capacity_milli: int) -> int:
        """Thousandths that the job holds of a device that offers so many."""
        return capacity_milli if self.gpu_milli >= WHOLE else self.gpu_milli

    def suits(self, model: str, memory_bytes: int) -> bool:
        """Whether devices of this kind will do; a part of a device has the same part of its memory."""
        enough = memory_bytes * min(self.gpu_milli, WHOLE) >= self.gpu_memory_bytes * WHOLE
        return (not self.gpu_types or model in self.gpu_types) and enough

    @property
    def shares(self) -> bool:
        """Whether it asks for a part of a device."""
        return self.gpu_milli < WHOLE


@dataclass(frozen=True, slots=True)
class Unit:
    """A device as the planner sees it."""

    id: int
    model: str
    memory_bytes: int
    free_milli: int
    capacity_milli: int
    team: int | None = None  # whose jobs hold parts of it; None: nobody's


@dataclass(frozen=True, slots=True)
class Node:
    """A worker as the planner sees it."""

    id: int
    name: str
    cpu_model: str
    cpus_milli: int
    cpus_free_milli: int
    memory_bytes: int
    memory_free_bytes: int
    attempts_limit: int
    attempts_free: int
    units: tuple[Unit, ...] = ()
    pool: str = "default"
    fractions: bool = True  # whether its pool lets jobs share a device
    data: frozenset[str] = frozenset()  # the data sets that it has at hand

    def emptied(self) -> "Node":
        """The same worker with nothing running on it."""
        return replace(
            self,
            cpus_free_milli=self.cpus_milli,
            memory_free_bytes=self.memory_bytes,
            attempts_free=self.attempts_limit,
            units=tuple(replace(unit, free_milli=unit.capacity_milli, team=None) for unit in self.units),
        )

    def after(self, demand: Demand, spot: "Spot") -> "Node":
        """The same worker once the job runs there too."""
        return self._changed(demand, spot, -1)

    def without(self, demand: Demand, spot: "Spot") -> "Node":
        """The same worker once the job, which runs there, has left."""
        return self._changed(demand, spot, 1)

    def _changed(self, demand: Demand, spot: "Spot", sign: int) -> "Node":
        return replace(
            self,
            cpus_free_milli=self.cpus_free_milli + sign * demand.cpus_milli,
            memory_free_bytes=self.memory_free_bytes + sign * demand.memory_bytes,
            attempts_free=self.attempts_free + sign,
            units=tuple(_taken(unit, demand, sign) if unit.id in spot.units else unit for unit in self.units),
        )


def _taken(unit: Unit, demand: Demand, sign: int) -> Unit:
    free = unit.free_milli + sign * demand.takes(unit.capacity_milli)
    team = demand.team if sign < 0 else unit.team
    return replace(unit, free_milli=free, team=None if free == unit.capacity_milli else team)


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a job would run."""

    node: int
    device: str  # cpu | gpu
    units: tuple[int, ...] = ()


def machine_of(node: Node, device: str) -> str:
    """The kind of machine that decides whether a resumed job goes on bit for bit."""
    models = sorted({unit.model for unit in node.units}) if device == "gpu" else []
    return " + ".join([*models, node.cpu_model])


def open_units(demand: Demand, node: Node) -> list[Unit]:
    """The devices of a worker that will do and have room for the job's share."""
    share, team = demand.gpu_milli, demand.team
    any_kind = not demand.gpu_types and not demand.gpu_memory_bytes
    if share < WHOLE and not node.fractions:
        return []
    return [  # asked a million times in a simulation: no calls that can be spared
        unit
        for unit in node.units
        if unit.free_milli >= (share if share < WHOLE else unit.capacity_milli)
        and (unit.team is None or unit.team == team)
        and (any_kind or demand.suits(unit.model, unit.memory_bytes))
    ]


def fits(demand: Demand, node: Node, device: str) -> bool:
    """Whether a job can run on this worker now."""
    return (
        demand.cpus_milli <= node.cpus_free_milli
        and demand.memory_bytes <= node.memory_free_bytes
        and node.attempts_free >= 1
        and (device != "gpu" or len(open_units(demand, node)) >= demand.gpus)
        and (demand.machine is None or machine_of(node, device) == demand.machine)
    )


def misfit(demand: Demand, node: Node, device: str) -> Reason | None:
    """Why a job cannot run on this worker now, what can be helped least first; None when it fits."""
    if fits(demand, node, device):
        return None
    if demand.machine is not None and machine_of(node, device) != demand.machine:
        return Reason("other_machine", f"it made its first steps on {demand.machine} and goes on there exactly")
    if device == "gpu" and (reason := _misfit_units(demand, node)):
        return reason
    if demand.cpus_milli > node.cpus_free_milli:
        least, most = demand.cpus_milli / 1000, node.cpus_free_milli / 1000
        return Reason("cpus", f"needs {least:g} CPUs; {most:g} of {node.cpus_milli / 1000:g} are free on {node.name}")
    if demand.memory_bytes > node.memory_free_bytes:
        gb = [round(amount / 1e9, 1) for amount in (demand.memory_bytes, node.memory_free_bytes, node.memory_bytes)]
        return Reason("memory", f"needs {gb[0]} GB of memory; {gb[1]} of {gb[2]} are free on {node.name}")
    return Reason("attempts", f"{node.name} runs {node.attempts_limit} attempts already, its limit")


def _misfit_units(demand: Demand, node: Node) -> Reason | None:
    if not node.units:
        return Reason("no_gpu", f"{node.name} has no GPU")
    if demand.shares and not node.fractions:
        return Reason("fractions", f"needs a part of a GPU; the pool {node.pool} of {node.name} shares none out")
    share_of = max(1, min(demand.gpu_milli, WHOLE))
    whole_memory = -(-demand.gpu_memory_bytes * WHOLE // share_of)  # of a device, a part of which is enough
    right = [unit for unit in node.units if demand.suits(unit.model, whole_memory)]
    if len(right) < demand.gpus:
        models = ", ".join(sorted({unit.model for unit in node.units}))
        wanted = " or ".join(demand.gpu_types) or "GPU"
        return Reason("gpu_type", f"needs {demand.gpus} × {wanted}; {node.name} has {len(node.units)} × {models}")
    large = [unit for unit in right if unit.memory_bytes >= whole_memory]
    if len(large) < demand.gpus:
        largest = max(unit.memory_bytes for unit in right) / 1e9
        need = whole_memory / 1e9
        return Reason("gpu_memory", f"needs {need:g} GB of GPU memory; {node.name} has devices of {largest:.0f} GB")
    free = len(open_units(demand, node))
    if free < demand.gpus:
        share = "" if demand.gpu_milli >= WHOLE else f" with {demand.gpu_milli / 10:g} % free"
        plural = "s" if demand.gpus > 1 else ""
        return Reason("gpus", f"needs {demand.gpus} GPU{plural}{share}; {free} of {len(large)} are free on {node.name}")
    return None


def kinds_of(nodes: Iterable[Node]) -> list[Node]:
    """One worker of each kind, emptied: what fits on none of them never runs, whatever ends."""
    found: dict[tuple[object, ...], Node] = {}
    for node in nodes:
        units = tuple((unit.model, unit.memory_bytes, unit.capacity_milli) for unit in node.units)
        room = (node.cpus_milli, node.memory_bytes, node.attempts_limit)
        found.setdefault((node.pool, node.cpu_model, node.fractions, room, units), node)
    return [node.emptied() for node in found.values()]


def devices_for(demand: Demand, nodes: Iterable[Node]) -> tuple[str, ...]:
    """On what a job may run, best first: ``auto`` takes a GPU where the fleet has one that could ever do."""
    if demand.device != "auto":
        return (demand.device,)
    return ("gpu", "cpu") if any(_ever(demand, node) for node in nodes) else ("cpu",)


def _ever(demand: Demand, node: Node) -> bool:
    if demand.shares and not node.fractions:
        return False
    right = [unit for unit in node.units if demand.suits(unit.model, unit.memory_bytes)]
    return sum(demand.takes(unit.capacity_milli) <= unit.capacity_milli for unit in right) >= demand.gpus
