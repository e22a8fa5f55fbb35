"""A week of a shared fleet, planned by Stoker, by FIFO and by priority alone: who waits how long, and who gets what.

python bench/sharing.py [--seed 1] [--days 7] [--seeds 1 2 3 4 5] [--picture docs/sharing.svg]

32 GPUs on 4 workers. Six teams; one has weight 2, two have guarantees, one sends all its jobs in two floods.
Each user has recipes of their own; like jobs take alike, and nobody knows how long beforehand. One job of twenty fails
early, a worker is lost every second day for an hour, three jobs of ten cannot write a checkpoint when asked to.
The first tables are of that week. The last is of five such weeks, and of days in which every team has more jobs than
its part of the fleet can run, so that shares can be compared with weights (``_fair.py`` says how).
"""

import argparse
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from _chart import draw
from _fair import fairness, used
from _planners import PLANNERS
from _replay import Run, run
from _told import Asking, inside, rows
from _week import DAY, FLOOD, GPUS, HOUR, TEAMS, WEIGHTS, Task, always_waiting, others, week

from stoker.jobs.timeline import Timeline

Ran = tuple[Run, Timeline]
OTHERS = 3  # weeks by which the odds of arrivals are known


def waits(made: Run, line: Timeline, team: int | None = None) -> list[float]:
    """Hours from each job's coming to its first start."""
    return [
        (line.first_starts[number] - task.at) / HOUR
        for number, task in made.tasks.items()
        if number in line.first_starts and team in {None, task.job.team}
    ]


def percentile(values: Sequence[float], share: float) -> float:
    """A percentile; 0 of nothing."""
    found = sorted(values)
    return found[round(share * (len(found) - 1))] if found else 0.0


def in_use(made: Run, line: Timeline, days: float) -> float:
    """The mean share of GPUs in use, in percent."""
    held = used(made, line, days * DAY)
    return 100 * sum(map(sum, held.values())) / (GPUS * len(held[1]))


def week_row(made: Run, line: Timeline, days: float) -> str:
    """A row of the first table."""
    everybody = waits(made, line)
    modest = [percentile(waits(made, line, team), 0.95) for team in TEAMS if team != FLOOD]
    work = sum(task.gpu_seconds for task in made.tasks.values())
    index = fairness(made, line, days * DAY)
    cells = [
        f"{in_use(made, line, days):.1f}",
        f"{percentile(everybody, 0.5):.2f}",
        f"{percentile(everybody, 0.95):.1f}",
        f"{max(everybody):.1f}",
        f"{max(modest):.1f}",
        f"{percentile(waits(made, line, FLOOD), 0.95):.1f}",
        f"{statistics.mean(index):.3f}",
        f"{made.preempted}",
        f"{100 * made.lost / work:.2f}",
        f"{1000 * statistics.median(made.passes):.1f}",
    ]
    return f"| {made.name} | {' | '.join(cells)} |"


def print_week(seed: int, days: float, asking: Asking) -> Mapping[str, Ran]:
    """The week under each planner, by team, and how good the estimates were."""
    tasks = week(seed, days)
    print(f"{len(tasks)} jobs on {GPUS} GPUs; waits in hours until the first start\n")
    columns = "GPUs used % | wait p50 | p95 | longest | worst team's p95 but flood's | p95 of flood | fairness"
    print(f"| planner | {columns} | preemptions | work lost % | ms a pass |\n|{'---|' * 11}", flush=True)
    runs: dict[str, Ran] = {}
    for name in PLANNERS:
        ask = {"watch": asking} if name == "Stoker" else {}
        runs[name] = run(name, tasks, seed=seed, days=days, drain=True, **ask)
        print(week_row(*runs[name], days), flush=True)
    print("\n| team | weight | " + " | ".join(f"{name}, p50 / p95" for name in PLANNERS) + f" |\n|{'---|' * 5}")
    for team, name in TEAMS.items():
        found = [waits(*ran, team) for ran in runs.values()]
        cells = [f"{percentile(hours, 0.5):.2f} / {percentile(hours, 0.95):.1f}" for hours in found]
        print(f"| {name} | {WEIGHTS.get(team, 1.0):g} | {' | '.join(cells)} |")
    print(f"\n| estimate | n | median error % | bias (median) % |\n|{'---|' * 4}")
    print("\n".join(rows(asking, *runs["Stoker"])))
    print(f"\nstarts within the range that was told: {100 * inside(asking, runs['Stoker'][1]):.0f} %", flush=True)
    return runs


def print_fairness(seeds: Sequence[int], week_days: float, fair_days: float) -> None:
    """How fair each planner is: in the week, and in days in which every team always wants more than its part."""
    loads: dict[str, tuple[float, Callable[[int, float], list[Task]]]] = {
        "the week": (week_days, week),
        "more than enough, normal and high": (fair_days, always_waiting),
        "more than enough, one class": (fair_days, partial(always_waiting, classes=False)),
    }
    columns = "least of all seeds | GPUs used % | longest wait of those started, hours"
    print(f"\n| load | planner | fairness, mean | {columns} |\n|{'---|' * 6}", flush=True)
    for load, (days, tasks) in loads.items():
        for name in PLANNERS if days > 0 else ():
            index, gpus, longest = list[float](), list[float](), 0.0
            for seed in seeds:
                ran = run(name, tasks(seed, days), seed=seed, days=days, drain=False)
                index += fairness(*ran, days * DAY)
                gpus.append(in_use(*ran, days))
                longest = max(longest, *waits(*ran))
            cells = f"{statistics.mean(index):.3f} | {min(index):.3f} | {statistics.mean(gpus):.1f} | {longest:.1f}"
            print(f"| {load} | {name} | {cells} |", flush=True)


def main() -> None:
    """Print the tables, and draw the picture."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--seed", type=int, default=1, help="of the week")
    given.add_argument("--days", type=float, default=7.0)
    given.add_argument("--ask-every", type=int, default=10, help="estimates are asked for every so-manieth job")
    given.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3, 4, 5], help="of the last table")
    given.add_argument("--fair-days", type=float, default=2.5)
    given.add_argument("--picture", type=Path)
    options = given.parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}; seed {options.seed}, {options.days:g} days\n")
    if options.days > 0:
        asking = Asking(options.ask_every, others(options.seed, options.days, OTHERS))
        runs = print_week(options.seed, options.days, asking)
        if options.picture:
            options.picture.write_text(draw(runs, options.days))
    if options.seeds:
        print_fairness(options.seeds, options.days, options.fair_days)


if __name__ == "__main__":
    main()
