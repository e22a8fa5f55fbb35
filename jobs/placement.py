"""Which worker, and which of its devices. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from stoker.jobs.reasons import Reason


@dataclass(frozen=True, slots=True)
class Demand:
    """What a job needs of one worker."""

    cpus_milli: int
    memory_bytes: int
    device: str = "auto"  # cpu | gpu | auto
    gpus: int = 1  # whole devices, when it runs on GPUs
    gpu_memory_bytes: int = 0
    gpu_type: str | None = None
    machine: str | None = None  # once it made a step: the only kind of machine on which it goes on exactly


@dataclass(frozen=True, slots=True)
class Unit:
    """A device as the planner sees it."""

    id: int
    model: str
    memory_bytes: int
    free_milli: int
    capacity_milli: int


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

    def emptied(self) -> "Node":
        """The same worker with nothing running on it."""
        return replace(
            self,
            cpus_free_milli=self.cpus_milli,
            memory_free_bytes=self.memory_bytes,
            attempts_free=self.attempts_limit,
            units=tuple(replace(unit, free_milli=unit.capacity_milli) for unit in self.units),
        )

    def after(self, demand: Demand, spot: "Spot") -> "Node":
        """The same worker once the job runs there too."""
        return replace(
            self,
            cpus_free_milli=self.cpus_free_milli - demand.cpus_milli,
            memory_free_bytes=self.memory_free_bytes - demand.memory_bytes,
            attempts_free=self.attempts_free - 1,
            units=tuple(replace(u, free_milli=0) if u.id in spot.units else u for u in self.units),
        )


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


def misfit(demand: Demand, node: Node, device: str) -> Reason | None:
    """Why a job cannot run on this worker now; None when it can. The one chain of predicates."""
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
    if node.attempts_free < 1:
        return Reason("attempts", f"{node.name} runs {node.attempts_limit} attempts already, its limit")
    return None


def _misfit_units(demand: Demand, node: Node) -> Reason | None:
    if not node.units:
        return Reason("no_gpu", f"{node.name} has no GPU")
    right = [unit for unit in node.units if demand.gpu_type in {None, unit.model}]
    if len(right) < demand.gpus:
        models = ", ".join(sorted({unit.model for unit in node.units}))
        return Reason(
            "gpu_type",
            f"needs {demand.gpus} × {demand.gpu_type or 'GPU'}; {node.name} has {len(node.units)} × {models}",
        )
    large = [unit for unit in right if unit.memory_bytes >= demand.gpu_memory_bytes]
    if len(large) < demand.gpus:
        largest = max(unit.memory_bytes for unit in right) / 1e9
        need = demand.gpu_memory_bytes / 1e9
        return Reason("gpu_memory", f"needs {need:g} GB of GPU memory; {node.name} has devices of {largest:.0f} GB")
    free = [unit for unit in large if unit.free_milli == unit.capacity_milli]
    if len(free) < demand.gpus:
        return Reason("gpus", f"needs {demand.gpus} GPUs; {len(free)} of {len(large)} are free on {node.name}")
    return None


def devices_for(demand: Demand, nodes: Iterable[Node]) -> tuple[str, ...]:
    """On what a job may run, best first: ``auto`` takes a GPU where the fleet has one that could ever do."""
    if demand.device != "auto":
        return (demand.device,)
    return ("gpu", "cpu") if any(_misfit_units(demand, node.emptied()) is None for node in nodes) else ("cpu",)


def choose(demand: Demand, nodes: list[Node]) -> Spot | None:
    """The tightest worker that fits: jobs for CPUs keep away from GPUs, and large gaps stay whole."""
    for device in devices_for(demand, nodes):
        fitting = [node for node in nodes if misfit(demand, node, device) is None]
        if fitting:
            best = min(fitting, key=lambda node: _gap(node, device))
            return Spot(best.id, device, _tightest(demand, best) if device == "gpu" else ())
    return None


def _gap(node: Node, device: str) -> tuple[int, int, int]:
    free_units = sum(unit.free_milli for unit in node.units)
    return (free_units, node.cpus_free_milli if device == "cpu" else 0, node.id)


def _tightest(demand: Demand, node: Node) -> tuple[int, ...]:
    usable = [
        unit
        for unit in node.units
        if unit.free_milli == unit.capacity_milli
        and demand.gpu_type in {None, unit.model}
        and unit.memory_bytes >= demand.gpu_memory_bytes
    ]
    usable.sort(key=lambda unit: (unit.memory_bytes, unit.id))
    return tuple(unit.id for unit in usable[: demand.gpus])
