"""A week of a shared fleet, planned by Stoker, by FIFO and by priority alone: who waits how long, and who gets what.

python bench/sharing.py [--seed 1] [--days 7] [--picture docs/sharing.svg]

32 GPUs on 4 workers. Six teams; one has weight 2, two have guarantees, one floods the queue twice with 200 jobs.
Each user has recipes of their own; like jobs take alike, and nobody knows how long beforehand. One job of twenty fails
early, a worker is lost every second day for an hour, three jobs of ten cannot write a checkpoint when asked to.
The first table is of that week. The second is of a week in which every team always has jobs waiting, so that shares can
be compared with weights: the weighted Jain index of each day's GPU-seconds for each weight, 1 where all get their due.
"""

import argparse
import math
import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from _chart import draw
from _week import DAY, GPUS, HOUR, TEAMS, WEIGHTS, Task, always_waiting, fleet, shares, week

from stoker.jobs.estimates import span
from stoker.jobs.fit import Demand
from stoker.jobs.forecast import Duration, Durations, Pace
from stoker.jobs.outlook import Draining, look_ahead
from stoker.jobs.placement import Board, LeastLoss, Rule
from stoker.jobs.planner import plan
from stoker.jobs.situation import Candidate, Placement, Preemption, Reservation, Running, Situation, Span
from stoker.jobs.timeline import Decisions, Planner, Stay, Timeline

KEPT_SECONDS = 900.0  # between checkpoints
RESTART_SECONDS = 30.0  # of a job that goes on


@dataclass
class Run:
    """What came of a list of jobs under one planner."""

    name: str
    tasks: dict[int, Task]
    known: Durations = field(default_factory=Durations)
    rule: Rule = field(default_factory=LeastLoss)
    passes: list[float] = field(default_factory=list)  # seconds
    lost: float = 0.0  # GPU-seconds, to preemption
    preempted: int = 0
    told: dict[int, tuple[float, float, float, float]] = field(default_factory=dict)  # at, start, low, high
    told_ends: dict[int, tuple[float, float]] = field(default_factory=dict)  # at, end


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


@dataclass(frozen=True)
class Learned:
    """What the planner may ask of durations: learned from jobs that ended, and from the pace of those that run."""

    made: Run
    line: list[Timeline]  # one, once it is made

    def of(self, job: Candidate, device: str) -> Span | None:  # noqa: ARG002
        """From a start to the end."""
        return span(self.made.known.expected(self.made.tasks[job.number].like))

    def left(self, running: Running, now: float) -> Span | None:  # noqa: ARG002
        """From now to the end."""
        return span(_left(self.made, self.line[0], running))


def run(
    name: str, tasks: Sequence[Task], *, seed: int, days: float, drain: bool, ask_every: int = 0
) -> tuple[Run, Timeline]:
    """Let the jobs come, until the last has ended (``drain``) or the days are over."""
    made = Run(name, {task.job.number: task for task in tasks})
    planner = PLANNERS[name]

    def timed(situation: Situation, rule: Rule) -> Decisions:
        started = time.perf_counter()
        decided = planner(situation, rule)
        made.passes.append(time.perf_counter() - started)
        return decided

    def lost(running: Running, now: float) -> float:
        late = made.tasks[running.number].asked_late
        seconds = RESTART_SECONDS + (now - running.kept_at if late else 0.0)
        made.preempted += 1
        made.lost += seconds * running.demand.gpus
        return seconds

    lines: list[Timeline] = []
    line = Timeline(
        Situation(0.0, [], fleet(), shares=shares(), estimates=Learned(made, lines)),
        made.rule,
        lambda job, _: made.tasks[job.number].seconds,
        planner=timed,
        kept_every_seconds=KEPT_SECONDS,
        lost=lost,
    )
    lines.append(line)
    for task in tasks:
        line.at(task.at, _arrival(line, task))
    _outages(line, random.Random(seed), days)
    ended = 0
    while (drain or line.now < days * DAY) and line.step():
        for number in list(line.ends)[ended:]:  # in the order in which they ended
            task = made.tasks[number]
            made.known.add(task.like, task.seconds)
            ended += 1
        if ask_every:
            _ask(made, line, ask_every)
    return made, line


def _arrival(line: Timeline, task: Task) -> Callable[[], None]:
    return lambda: line.submit(task.job)


def _outages(line: Timeline, chance: random.Random, days: float) -> None:
    """Every second day a worker is lost for an hour; its jobs go on elsewhere from their last checkpoints."""

    def down(number: int) -> None:
        for running in [one for one in line.running.values() if one.spot.node == number]:
            line.stop(running.number, lost_seconds=RESTART_SECONDS + (line.now - running.placed_at) % KEPT_SECONDS)
        node = line.nodes.pop(number)
        line.at(line.now + HOUR, lambda: line.nodes.update({number: node}))

    for at in range(1, int(days), 2):
        number = chance.randint(1, len(line.nodes))
        line.at((at + chance.random()) * DAY, lambda number=number: down(number))


def _ask(made: Run, line: Timeline, every: int) -> None:
    """Ask for the start and end of every so-manieth job that has come and waits, once, with what is known by then."""
    asked = [number for number in line.waiting if number % every == 0 and number not in made.told]
    if not asked or line.now < DAY:  # the first day teaches
        return
    draining = Draining(
        line.situation(),
        made.rule,
        {number: made.known.expected(made.tasks[number].like) for number in line.waiting},
        {number: _left(made, line, running) for number, running in line.running.items()},
        budget_seconds=math.inf,
    )
    for number, outlook in look_ahead(draining, asked, runs=5, passes=150).items():
        if outlook.start_seconds is not None and outlook.end_seconds is not None:
            high = outlook.start_high_seconds
            range_ends = (outlook.start_low_seconds, float("inf") if high is None else high)
            made.told[number] = (line.now, outlook.start_seconds, *range_ends)
            made.told_ends[number] = (line.now, outlook.end_seconds)


def _left(made: Run, line: Timeline, running: Running) -> Duration:
    """What a job has left, as far as its trainer tells: one that will fail looks like one that will not."""
    task = made.tasks[running.number]
    ran = max(1.0, line.now - running.placed_at)
    left = line.ends_at[running.number] - line.now + task.full_seconds - task.seconds
    pace = None if task.silent else Pace(ran, ran / task.full_seconds, max(0.0, left / task.full_seconds))
    return made.known.left(task.like, ran, pace)


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


def served(made: Run, line: Timeline, start: float, end: float) -> dict[int, float]:
    """GPU-seconds of each team between two times."""
    found = dict.fromkeys(TEAMS, 0.0)
    open_stays = [Stay(one.number, one.spot, one.placed_at, line.now) for one in line.running.values()]
    for stay in [*line.stays, *open_stays]:
        job = made.tasks[stay.number].job
        found[job.team] += job.demand.gpus * max(0.0, min(end, stay.to_seconds) - max(start, stay.from_seconds))
    return found


def jain(values: Sequence[float]) -> float:
    """Jain's index: 1 when all are equal, 1/n when one has everything."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def fairness(made: Run, line: Timeline, days: float) -> list[float]:
    """The weighted Jain index of each day."""
    found = []
    for day in range(int(days)):
        got = served(made, line, day * DAY, (day + 1) * DAY)
        found.append(jain([got[team] / WEIGHTS.get(team, 1.0) for team in TEAMS]))
    return found


def errors(made: Run, line: Timeline) -> tuple[list[float], list[float], float]:
    """Of waits of ten minutes and more the error of the estimated wait, of all the error of the end; share in range."""
    starts, ends, inside = [], [], []
    for number, (at, start, low, high) in made.told.items():
        true = line.first_starts.get(number, math.inf) - at
        if 600 <= true < math.inf:
            starts.append((start - true) / true)
            inside.append(low - 60 <= true <= high + 60)
        if number in line.ends and made.tasks[number].seconds == made.tasks[number].full_seconds:
            ends.append((made.told_ends[number][1] - (line.ends[number] - at)) / (line.ends[number] - at))
    return starts, ends, statistics.mean(inside) if inside else 1.0


def week_row(made: Run, line: Timeline, days: float) -> str:
    """A row of the first table."""
    used = sum(served(made, line, 0, days * DAY).values()) / (GPUS * days * DAY)
    everybody = waits(made, line)
    modest = [percentile(waits(made, line, team), 0.95) for team in TEAMS if TEAMS[team] != "flood"]
    cells = [
        f"{100 * used:.1f}",
        f"{percentile(everybody, 0.5):.2f}",
        f"{percentile(everybody, 0.95):.1f}",
        f"{max(everybody):.1f}",
        f"{max(modest):.1f}",
        f"{percentile(waits(made, line, 6), 0.95):.1f}",
        f"{made.preempted}",
        f"{100 * made.lost / max(1.0, sum(served(made, line, 0, line.now).values())):.2f}",
        f"{1000 * statistics.median(made.passes):.1f}",
    ]
    return f"| {made.name} | {' | '.join(cells)} |"


def main() -> None:
    """Print the tables, and draw the picture."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--seed", type=int, default=1)
    given.add_argument("--days", type=float, default=7.0)
    given.add_argument("--ask-every", type=int, default=5, help="estimates are asked for every so-manieth job")
    given.add_argument("--picture", type=Path)
    options = given.parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}; seed {options.seed}, {options.days:g} days\n")
    tasks = week(options.seed, options.days)
    print(f"{len(tasks)} jobs on {GPUS} GPUs; waits in hours until the first start\n")
    columns = "GPUs used % | wait p50 | p95 | longest | worst team's p95 but flood's | p95 of flood | preemptions"
    print(f"| planner | {columns} | work lost % | ms a pass |\n|{'---|' * 10}", flush=True)
    runs = {}
    for name in PLANNERS:
        every = options.ask_every if name == "Stoker" else 0
        runs[name] = run(name, tasks, seed=options.seed, days=options.days, drain=True, ask_every=every)
        print(week_row(*runs[name], options.days), flush=True)
    print("\n| team | weight | " + " | ".join(f"{name}, p50 / p95" for name in PLANNERS) + f" |\n|{'---|' * 5}")
    for team, name in TEAMS.items():
        cells = [
            f"{percentile(waits(*runs[one], team), 0.5):.2f} / {percentile(waits(*runs[one], team), 0.95):.1f}"
            for one in PLANNERS
        ]
        print(f"| {name} | {WEIGHTS.get(team, 1.0):g} | {' | '.join(cells)} |")
    starts, ends, inside = errors(*runs["Stoker"])
    print(f"\nEstimates, asked for once while a job waits: {len(starts)} starts, {len(ends)} ends")
    for what, found in (("start", starts), ("end", ends)):
        if not found:
            continue
        middle, sizes = statistics.median(found), [abs(error) for error in found]
        print(f"{what}: median error {100 * statistics.median(sizes):.1f} %, bias (median) {100 * middle:+.1f} %")
    print(f"starts within the range that was told: {100 * inside:.0f} %")
    print("\n| planner | weighted Jain index of a day: mean | least | GPUs used % |\n|---|---|---|---|", flush=True)
    for name in PLANNERS:
        made, line = run(
            name, always_waiting(options.seed, options.days), seed=options.seed, days=options.days, drain=False
        )
        index = fairness(made, line, options.days)
        used = sum(served(made, line, 0, options.days * DAY).values()) / (GPUS * options.days * DAY)
        print(f"| {name} | {statistics.mean(index):.3f} | {min(index):.3f} | {100 * used:.1f} |", flush=True)
    if options.picture:
        options.picture.write_text(draw(runs, options.days))


if __name__ == "__main__":
    main()
