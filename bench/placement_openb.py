"""How full placement gets a fleet, on the OpenB trace and on other mixes made of it, beside known policies.

python bench/placement_openb.py [--trace ../shared/data/openb] [--seeds 10] [--mixes-seeds 3] [--processes 2]

The first table is the protocol of "Beware of Fragmentation" (ATC 2023): load 130 %, seeds 42, 43, …; published means
of ten seeds: random 87.47, best fit 93.08, FGD 95.39. The second takes every fourth worker.
"""

import argparse
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from stoker.jobs.fit import WHOLE, Demand, Node
from stoker.jobs.simulation import arrivals, capacity, make_policy, simulate
from stoker.jobs.trace import read_nodes, read_tasks

LOAD = 1.3
ROWS = (  # name, policy, whether it knows the mix
    ("random", "random", False),
    ("best fit", "best-fit", False),
    ("FGD, mix known", "fgd", True),
    ("FGD, learns", "fgd", False),
    ("Stoker, mix known", "prices", True),
    ("Stoker, learns", "prices", False),
)


def wholes(tasks: Sequence[Demand]) -> list[Demand]:
    """The tasks for one whole GPU."""
    return [task for task in tasks if task.device == "gpu" and task.gpus == 1 and task.gpu_milli == WHOLE]


def several(tasks: Sequence[Demand]) -> list[Demand]:
    """The tasks for several GPUs."""
    return [task for task in tasks if task.gpus > 1]


def shares(tasks: Sequence[Demand]) -> list[Demand]:
    """The tasks for a part of a GPU."""
    return [task for task in tasks if task.gpu_milli < WHOLE]


def for_cpus(tasks: Sequence[Demand]) -> list[Demand]:
    """The tasks for CPUs."""
    return [task for task in tasks if task.device == "cpu"]


def hungry(tasks: Sequence[Demand]) -> list[Demand]:
    """Each task for GPUs wants twice the CPUs."""
    return [replace(task, cpus_milli=2 * task.cpus_milli) if task.device == "gpu" else task for task in tasks]


def typed(tasks: Sequence[Demand], nodes: Sequence[Node]) -> list[Demand]:
    """A third of the tasks for one or two GPUs names a model, in proportion to their number."""
    chance = random.Random(1)
    models = [unit.model for node in nodes for unit in node.units]
    return [
        replace(task, gpu_types=(chance.choice(models),))
        if task.device == "gpu" and task.gpus <= 2 and chance.random() < 1 / 3
        else task
        for task in tasks
    ]


def scarce(tasks: Sequence[Demand]) -> list[Demand]:
    """A third of the tasks for one or two GPUs names one of five sets of models, however few there are."""
    chance = random.Random(1)
    sets = [("V100M16", "V100M32"), ("T4",), ("G3", "V100M32"), ("P100",), ("G2",)]
    return [
        replace(task, gpu_types=chance.choice(sets))
        if task.device == "gpu" and task.gpus <= 2 and chance.random() < 1 / 3
        else task
        for task in tasks
    ]


def mixes(tasks: list[Demand], nodes: list[Node]) -> dict[str, list[list[Demand]]]:
    """Other mixes: each a list of phases that follow one another, of equal GPU demand."""
    some = for_cpus(tasks)[::2]
    small, large = shares(tasks) + some, wholes(tasks) + several(tasks) * 6 + some
    return {
        "the trace": [tasks],
        "twice the CPUs a GPU": [hungry(tasks)],
        "four times the CPU jobs": [tasks + for_cpus(tasks) * 3],
        "half for several GPUs": [wholes(tasks)[::4] + several(tasks) * 12 + shares(tasks)[::4]],
        "only for several GPUs": [several(tasks) * 12 + for_cpus(tasks)[::4]],
        "mostly shares": [shares(tasks) + wholes(tasks)[::8] + for_cpus(tasks)],
        "only shares": [shares(tasks)],
        "only whole GPUs": [wholes(tasks) + several(tasks) + for_cpus(tasks)],
        "a third names a model": [typed(tasks, nodes)],
        "a third names a scarce model": [scarce(tasks)],
        "drifts from shares to wholes": [small, large],
        "drifts from wholes to shares": [large, small],
    }


def one_run(nodes: list[Node], phases: list[list[Demand]], run: tuple[str, bool, int]) -> tuple[float, float]:
    """Simulate once: percent allocated, and CPU milliseconds a decision."""
    policy, knows, seed = run
    order = [task for tasks in phases for task in arrivals(tasks, capacity(nodes), LOAD / len(phases), seed)]
    history = [task for tasks in phases for task in tasks] if knows else []
    made = make_policy(policy, nodes, history)
    started = time.process_time()  # not wall time: other programs may run beside this one
    outcome = simulate(nodes, order, made)
    return outcome.gpu_allocated_percent, 1000 * (time.process_time() - started) / outcome.arrived


def figures(
    pool: ProcessPoolExecutor, run: Callable[[tuple[str, bool, int]], tuple[float, float]], seeds: int
) -> Iterator[list[tuple[float, float]]]:
    """For each row the outcome of each seed, as soon as it is there."""
    runs = [(policy, knows, 42 + seed) for _, policy, knows in ROWS for seed in range(seeds)]
    found = pool.map(run, runs)
    for _ in ROWS:
        yield [next(found) for _ in range(seeds)]


def main() -> None:
    """Print both tables."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--trace", type=Path, default=Path("../shared/data/openb"))
    given.add_argument("--seeds", type=int, default=10)
    given.add_argument("--mixes-seeds", type=int, default=3)
    given.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = given.parse_args()
    nodes = read_nodes(options.trace / "nodes.csv")
    tasks = read_tasks(options.trace / "tasks.csv", nodes)
    print(f"{platform.machine()}, Python {platform.python_version()}, {os.cpu_count()} CPUs, pure Python\n")
    with ProcessPoolExecutor(options.processes) as pool:
        print(f"{len(nodes)} workers, {capacity(nodes) // WHOLE} GPUs, load {LOAD:.0%}, {options.seeds} seeds\n")
        print("| policy | GPUs allocated, mean % | sd | least | ms a decision |\n|---|---|---|---|---|", flush=True)
        found = figures(pool, partial(one_run, nodes, [tasks]), options.seeds)
        for (name, _, _), outcomes in zip(ROWS, found, strict=True):
            percents = [percent for percent, _ in outcomes]
            deviation = statistics.stdev(percents) if len(percents) > 1 else 0.0
            cost = statistics.mean(cost for _, cost in outcomes)
            row = f"{statistics.mean(percents):.2f} | {deviation:.2f} | {min(percents):.2f} | {cost:.2f}"
            print(f"| {name} | {row} |", flush=True)
        few = nodes[::4]
        print(f"\n{len(few)} workers, {capacity(few) // WHOLE} GPUs, {options.mixes_seeds} seeds: mean % allocated\n")
        print(f"| mix | {' | '.join(name for name, _, _ in ROWS)} |\n|{'---|' * (len(ROWS) + 1)}", flush=True)
        for name, phases in mixes(tasks, few).items():
            found = figures(pool, partial(one_run, few, phases), options.mixes_seeds)
            means = [f"{statistics.mean(percent for percent, _ in outcomes):.2f}" for outcomes in found]
            print(f"| {name} | {' | '.join(means)} |", flush=True)


if __name__ == "__main__":
    main()
