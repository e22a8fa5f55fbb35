"""How long a plan takes on a large fleet with a long queue.

python bench/planner_scale.py [--passes 21]

1,000 workers with 8,000 GPUs, 90 % of them in use, 40 shapes, 8 teams, 10,000 queued jobs that could all run
somewhere; the GPUs that are free take at least 100 of them.
"""

import argparse
import gc
import os
import platform
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace

from stoker.jobs.fit import Demand, Node, Unit
from stoker.jobs.mix import Mix, shape_of
from stoker.jobs.placement import Board, LeastLoss
from stoker.jobs.planner import plan
from stoker.jobs.shares import Quota, Shares, TeamShare
from stoker.jobs.situation import Candidate, Running, Situation, Span

GB = 10**9
WORKERS, GPUS, TEAMS, USERS, QUEUED = 1000, 8, 8, 5, 10_000
HOUR = 3600.0


class Known:
    """Estimates as they are when jobs alike have run: an hour, give or take."""

    def of(self, job: Candidate, device: str) -> Span | None:  # noqa: ARG002
        """Half an hour to two."""
        return Span(HOUR / 2, HOUR, 2 * HOUR)

    def left(self, running: Running, now: float) -> Span | None:  # noqa: ARG002
        """By its number, up to two hours."""
        left = HOUR * (running.number % 97 + 1) / 48
        return Span(left / 2, left, 2 * left)


def shapes() -> list[Demand]:
    """Forty demands that every worker could run when empty."""
    return [
        Demand(cpus * 1000, memory * GB, "gpu", gpus, gpu_types=types)
        for gpus in (1, 1, 2, 4, 8)
        for cpus, memory in ((gpus, 8 * gpus), (2 * gpus, 16 * gpus), (3 * gpus, 8 * gpus), (4 * gpus, 32 * gpus))
        for types in ((), ("H100", "A100"))
    ]


def fleet() -> list[Node]:
    """Idle workers."""
    return [
        Node(
            number, f"gpu-{number:04}", "epyc", 64_000, 64_000, 512 * GB, 512 * GB, 16, 16,
            tuple(Unit(number * GPUS + place, "H100" if number % 2 else "A100", 80 * GB, 1000, 1000)
                  for place in range(GPUS)),
        )
        for number in range(WORKERS)
    ]  # fmt: skip


def busy(chance: random.Random, demands: Sequence[Demand], rule: LeastLoss) -> tuple[list[Node], list[Running]]:
    """The fleet when 90 % of its GPUs are in use, as it gets by jobs that come and go."""
    board, running = Board(fleet(), rule), list[Running]()
    used, goal = 0, round(0.9 * WORKERS * GPUS)
    while used < goal:
        demand = chance.choice(demands)
        spot = board.choose(demand)
        if spot is None or used + demand.gpus > goal:
            demand = replace(demands[0])
            spot = board.choose(demand)
        assert spot is not None
        board.place(demand, spot)
        number = len(running) + 1
        running.append(Running(number, 1, demand, spot, number % TEAMS, number % (TEAMS * USERS), placed_at=-HOUR))
        used += demand.gpus
    for _ in range(400):  # some have left, others have come: gaps everywhere
        gone = running.pop(chance.randrange(len(running)))
        board.leave(gone.demand, gone.spot)
    return board.nodes, running


def queue(chance: random.Random, demands: Sequence[Demand]) -> list[Candidate]:
    """Ten thousand jobs of forty users."""
    found = []
    for number in range(100_000, 100_000 + QUEUED):
        user = chance.randrange(TEAMS * USERS)
        found.append(Candidate(number, chance.choice((0, 1, 1, 1, 2)), chance.choice(demands), user % TEAMS, user))
    return found


def situation(chance: random.Random, rule: LeastLoss) -> Situation:
    """All that a plan is made of."""
    demands = shapes()
    nodes, running = busy(chance, demands, rule)
    quota = {"default": Quota(gpus_milli=600_000)}
    shares = Shares({team: TeamShare(f"team-{team}", 1.0 + team % 3, 1e5 * team, quota) for team in range(TEAMS)})
    return Situation(0.0, queue(chance, demands), nodes, running, shares=shares, estimates=Known())


def measure(passes: int) -> None:
    """Print the table."""
    demands = shapes()
    rule = LeastLoss(Mix.of(dict.fromkeys(map(shape_of, demands), 1.0)))
    seconds, reasons, placed = list[float](), list[float](), list[int]()
    for turn in range(passes):
        chance = random.Random(turn)
        before = situation(chance, rule)
        before = replace(before, reservations=plan(before, rule).reservations)  # as they are in use
        gc.collect()  # else it runs in this plan or not, by what the bench itself has made
        started = time.process_time()
        made = plan(before, rule)
        seconds.append(time.process_time() - started)
        placed.append(len(made.placements))
        for job in chance.sample(made.waiting, 10):
            started = time.process_time()
            made.reason(job)
            reasons.append(time.process_time() - started)
    print("| | median ms | p95 ms |\n|---|---|---|")
    for name, found in (("a plan", seconds), ("a reason", reasons)):
        ordered = sorted(1000 * second for second in found)
        print(f"| {name} | {statistics.median(ordered):.1f} | {ordered[int(0.95 * len(ordered))]:.1f} |")
    print(f"\nplaced {min(placed)} to {max(placed)} jobs a plan; n = {passes} fleets; CPU time")


def main() -> None:
    """Print the table."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--passes", type=int, default=21)
    options = given.parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}, {os.cpu_count()} CPUs\n")
    measure(options.passes)


if __name__ == "__main__":
    main()
