"""What Stoker's planner is compared with: first come, first served, and priority alone."""

from collections.abc import Callable
from dataclasses import dataclass

from stoker.jobs.fit import Demand
from stoker.jobs.placement import Board, Rule
from stoker.jobs.planner import plan
from stoker.jobs.situation import Candidate, Placement, Preemption, Reservation, Situation
from stoker.jobs.timeline import Planner


@dataclass(frozen=True)
class Simple:
    """What a planner without shares decides."""

    placements: tuple[Placement, ...]
    preemptions: tuple[Preemption, ...] = ()
    reservations: tuple[Reservation, ...] = ()


def fifo(situation: Situation, rule: Rule) -> Simple:
    """The first come is the first to start; nobody passes."""
    return _in_order(situation, rule, lambda job: (job.number,), passing=False)


def priority_only(situation: Situation, rule: Rule) -> Simple:
    """Higher priority first, then who came first; one that does not fit is passed."""
    return _in_order(situation, rule, lambda job: (-job.priority, job.number), passing=True)


def _in_order(
    situation: Situation, rule: Rule, key: Callable[[Candidate], tuple[int, ...]], *, passing: bool
) -> Simple:
    board, placements = Board(situation.fleet, rule), []
    full: set[Demand] = set()
    for job in sorted(situation.queue, key=key):
        spot = None if job.demand in full else board.choose(job.demand)
        if spot is not None:
            board.place(job.demand, spot)
            placements.append(Placement(job.number, job.demand, spot))
        elif not passing:
            break
        else:
            full.add(job.demand)
    return Simple(tuple(placements))


PLANNERS: dict[str, Planner] = {"FIFO": fifo, "priority only": priority_only, "Stoker": plan}
