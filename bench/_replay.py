"""Lets a list of jobs come, run and end under one planner, with workers that are lost and jobs that fail."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from _planners import PLANNERS
from _week import DAY, HOUR, Task, fleet, shares

from stoker.jobs.estimates import span
from stoker.jobs.forecast import Duration, Durations, Like, Pace
from stoker.jobs.placement import LeastLoss, Rule
from stoker.jobs.situation import Candidate, Running, Situation, Span
from stoker.jobs.timeline import Decisions, Timeline

KEPT_SECONDS = 900.0  # between checkpoints
RESTART_SECONDS = 30.0  # of a job that goes on
Watch = Callable[["Run", Timeline], None]  # called whenever something has happened


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

    def left(self, line: Timeline, running: Running) -> Duration:
        """What a job has left, as far as its trainer tells: one that will fail looks like one that will not."""
        task = self.tasks[running.number]
        ran = max(1.0, line.now - running.placed_at)
        left = line.ends_at[running.number] - line.now + task.full_seconds - task.seconds
        pace = None if task.silent else Pace(ran, ran / task.full_seconds, max(0.0, left / task.full_seconds))
        return self.known.left(task.like, ran, pace)


class Learned:
    """What the planner may ask of durations: learned from jobs that ended, and from the pace of those that run."""

    def __init__(self, made: Run, line: list[Timeline]) -> None:
        """``line`` gets the timeline once it is made."""
        self._made, self._line = made, line
        self._lasts: dict[Like, tuple[int, Span]] = {}  # with how many jobs had ended by then

    def of(self, job: Candidate, device: str) -> Span | None:  # noqa: ARG002
        """From a start to the end."""
        like, ended = self._made.tasks[job.number].like, len(self._line[0].ends)
        if like not in self._lasts or self._lasts[like][0] != ended:
            self._lasts[like] = (ended, span(self._made.known.expected(like)))
        return self._lasts[like][1]

    def left(self, running: Running, now: float) -> Span | None:  # noqa: ARG002
        """From now to the end."""
        return span(self._made.left(self._line[0], running))


def run(
    name: str, tasks: Sequence[Task], *, seed: int, days: float, drain: bool, watch: Watch = lambda _made, _line: None
) -> tuple[Run, Timeline]:
    """Let the jobs come, until the last has ended (``drain``) or the days are over."""
    made = Run(name, {task.job.number: task for task in tasks})

    def timed(situation: Situation, rule: Rule) -> Decisions:
        started = time.perf_counter()
        decided = PLANNERS[name](situation, rule)
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
        watch(made, line)
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
