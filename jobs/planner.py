"""The pure function that decides whose turn it is and where each job runs."""

from dataclasses import dataclass
from functools import cached_property

from stoker.jobs.fit import Demand, Node, devices_for, misfit
from stoker.jobs.placement import Board, Rule
from stoker.jobs.reasons import NEXT, NO_WORKER, Reason
from stoker.jobs.situation import Candidate, Placement, Preemption, Reservation, Situation


@dataclass(frozen=True)
class Plan:
    """What a pass decided."""

    placements: tuple[Placement, ...]
    waiting: tuple[Candidate, ...]  # in the order of their turn
    left: tuple[Node, ...]  # the workers once all that is placed runs
    preemptions: tuple[Preemption, ...] = ()
    reservations: tuple[Reservation, ...] = ()  # all that hold from now on
    complete: bool = True  # False: the window ended before the plan did; another pass goes on

    @cached_property
    def reasons(self) -> dict[int, Reason]:
        """For each job that stays in the queue the reason; worked out when first asked for, a pass needs none."""
        found = {demand: why_not(demand, list(self.left)) for demand in {job.demand for job in self.waiting}}
        return {job.number: found[job.demand] for job in self.waiting}


def plan(situation: Situation, rule: Rule) -> Plan:
    """Place jobs in the order of their turn: higher priority first, then lower number.

    A job that does not fit is passed by those behind it that do. Capacity promised here is never promised twice.
    """
    board = Board(situation.fleet, rule)
    placements: list[Placement] = []
    waiting: list[Candidate] = []
    full: set[Demand] = set()  # equal demands fit alike, and nothing is freed during a pass
    for job in sorted(situation.queue, key=turn):
        spot = None if job.demand in full else board.choose(job.demand)
        if spot is None:
            full.add(job.demand)
            waiting.append(job)
            continue
        board.place(job.demand, spot)
        placements.append(Placement(job.number, job.demand, spot))
    return Plan(tuple(placements), tuple(waiting), tuple(board.nodes))


def turn(job: Candidate) -> tuple[int, int, int]:
    """The key by which jobs take turns."""
    return (-job.priority, job.own_order, job.number)


def why_not(demand: Demand, nodes: list[Node]) -> Reason:
    """The one reason why a job does not start now: that of the worker that comes nearest to fitting."""
    if not nodes:
        return NO_WORKER
    devices = devices_for(demand, nodes)
    found = [misfit(demand, node, device) for device in devices for node in nodes]
    missing = [reason for reason in found if reason is not None]
    if len(missing) < len(found):
        return NEXT
    order = ("gpus", "cpus", "memory", "attempts", "other_machine", "gpu_memory", "gpu_type", "no_gpu")
    return min(missing, key=lambda reason: order.index(reason.code))


def never(demand: Demand, known: list[Node]) -> Reason | None:
    """Why no known worker could ever run a job, even when empty; None when one could, or none is known."""
    reason = why_not(demand, [node.emptied() for node in known])
    return None if reason in {NEXT, NO_WORKER} else reason
