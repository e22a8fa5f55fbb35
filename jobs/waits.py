"""Why a job waits: exactly one reason, from the same predicates by which it was not placed. Pure."""

from collections.abc import Collection, Iterable
from enum import StrEnum

from stoker.jobs.fit import Demand, Node, devices_for, kinds_of, misfit
from stoker.jobs.ledger import Ledger
from stoker.jobs.placement import Board
from stoker.jobs.promises import Promise, Promises
from stoker.jobs.reasons import GPU_SOONER, NEXT, NO_WORKER, Reason
from stoker.jobs.situation import Candidate

NEAREST_FIRST = (
    "gpus", "cpus", "memory", "attempts", "other_machine", "fractions", "gpu_memory", "gpu_type", "no_gpu",
)  # fmt: skip


class Verdict(StrEnum):
    """What kept a job from starting, as a plan notes it."""

    NO_PLACE = "no_place"  # it fits nowhere, or only on what is kept for others
    TEAM_LIMIT = "team_limit"
    GPU_SOONER = "gpu_sooner"


def why(job: Candidate, verdict: Verdict, board: Board, promises: Promises, ledger: Ledger) -> Reason:
    """The one reason why a job waits, once a plan is made."""
    if verdict is Verdict.TEAM_LIMIT:
        return _limited(job, board, ledger)
    if verdict is Verdict.GPU_SOONER:
        return GPU_SOONER
    if (promise := promises.kept.get(job.number)) is not None:
        return _promised(promise, board)
    reason = why_not(job.demand, board.looks)
    kept = _kept(job, board, promises) if reason.code in {"gpus", "cpus", "memory", "attempts"} else None
    return kept or reason


def why_not(demand: Demand, nodes: Collection[Node]) -> Reason:
    """The one reason why a job does not start now: that of the worker that comes nearest to fitting."""
    if not nodes:
        return NO_WORKER
    devices = devices_for(demand, kinds_of(nodes))
    roomy = sorted(nodes, key=_room)
    found = [misfit(demand, node, device) for device in devices for node in roomy]
    missing = [reason for reason in found if reason is not None]
    if len(missing) < len(found):
        return NEXT
    return min(missing, key=lambda reason: NEAREST_FIRST.index(reason.code))


def _room(node: Node) -> tuple[int, int, int, int]:
    """The most free GPUs first, then CPUs, then memory."""
    gpus = sum(unit.free_milli for unit in node.units)
    return (-gpus, -node.cpus_free_milli, -node.memory_free_bytes, node.id)


def or_other_version(reason: Reason, demand: Demand, own: Collection[Node], other: Collection[Node]) -> Reason:
    """The reason, or that a worker of another protocol would do: one that could start it now, or alone ever could."""
    if reason is NEXT or not other:
        return reason
    if reason is NO_WORKER:
        return Reason(
            "other_version", "the workers that are live speak another protocol than this server; upgrade them"
        )
    alone = never(demand, own) is not None and never(demand, other) is None
    if not alone and why_not(demand, other) is not NEXT:
        return reason
    able = next((node for node in other if never(demand, [node]) is None), None)
    name = able.name if able else "one"
    return Reason("other_version", f"{name} could run it, but speaks another protocol than this server; upgrade it")


def never(demand: Demand, known: Iterable[Node]) -> Reason | None:
    """Why no known worker could ever run a job, even when empty; None when one could, or none is known."""
    reason = why_not(demand, kinds_of(known))
    return None if reason in {NEXT, NO_WORKER} else reason


def _limited(job: Candidate, board: Board, ledger: Ledger) -> Reason:
    name = ledger.name(job.team)
    for device in board.devices(job.demand):
        unit = "GPUs" if device == "gpu" else "CPUs"
        for pool in sorted({node.pool for node in board.kinds}):
            held, limit = ledger.limit(job, device, pool)
            if limit is not None:
                most = f"of the {limit / 1000:g} {unit} that it may use in the pool {pool}"
                return Reason("team_limit", f"team {name} holds {held / 1000:g} {most}")
    return Reason("team_limit", f"team {name} holds all that it may use")


def _promised(promise: Promise, board: Board) -> Reason:
    node = board.node(promise.reservation.spot.node)
    place = node.name if node else "its worker"
    jobs = _jobs([running.number for running in promise.leavers])
    if promise.reservation.expires_at is not None:
        return Reason("making_room", f"{jobs} will make room for it on {place}")
    return Reason("reserved", f"a place on {place} is kept for it until {jobs} will have ended")


def _jobs(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return f"job {numbers[0]}"
    shown = sorted(numbers)[:3]
    more = f" and {len(numbers) - len(shown)} more" if len(numbers) > len(shown) else ""
    return f"jobs {', '.join(map(str, shown))}{more}"


def _kept(job: Candidate, board: Board, promises: Promises) -> Reason | None:
    """Whether it would fit where a place is kept for another job."""
    for promise, node in promises.held_nodes():
        if any(misfit(job.demand, node, device) is None for device in board.devices(job.demand)):
            return Reason(
                "kept", f"fits on {node.name}, where a place is kept for job {promise.job.number} that it would delay"
            )
    return None
