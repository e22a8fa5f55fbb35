"""Estimates in a simulated week: asked for once a job, corrected by what came of those before, compared with what came.

Beside them three bounds: what the same look ahead tells when it knows how long every job runs that has come; when it
knows what is still to come instead; and when of that it knows no more than the odds, by three other weeks of the same
users. None knows which worker will be lost.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from _replay import Run
from _week import DAY, HOUR, Task

from stoker.jobs.arrivals import past_days
from stoker.jobs.estimates import Known
from stoker.jobs.forecast import Duration
from stoker.jobs.outlook import GRAIN, PASSES, Draining, Outlook, look_ahead
from stoker.jobs.timeline import Timeline
from stoker.jobs.told import LEAST_SECONDS, Correction

AHEAD = 10**6  # the number of the first job that is still to come
SETTLED_SECONDS = 300.0  # a running job is asked about when it has run so long


@dataclass(frozen=True)
class Told:
    """What was told of a job that waited."""

    at: float
    raw: Outlook
    corrected: Outlook
    lengths_known: Outlook
    odds_known: Outlook
    arrivals_known: Outlook


@dataclass
class Asking:
    """Asks for start and end of every so-manieth job, once while it waits and once while it runs."""

    every: int
    others: Sequence[Sequence[Task]]  # weeks as likely as this one
    told: dict[int, Told] = field(default_factory=dict)
    ends: dict[int, tuple[float, float]] = field(default_factory=dict)  # of running jobs: at, end

    def __call__(self, made: Run, line: Timeline) -> None:
        """Ask what can be asked now."""
        if line.now < DAY:  # the first day teaches
            return
        asked = [number for number in line.waiting if number % self.every == 0 and number not in self.told]
        if asked:
            self._starts(made, line, asked)
        for number, running in line.running.items():
            settled = number % self.every == 0 and line.now - running.placed_at >= SETTLED_SECONDS
            if settled and number not in self.ends:
                self.ends[number] = (line.now, line.now + made.left(line, running).p50_seconds)

    def _starts(self, made: Run, line: Timeline, asked: list[int]) -> None:
        lasts = {number: made.known.expected(made.tasks[number].like) for number in line.waiting}
        left = {number: made.left(line, running) for number, running in line.running.items()}
        past = [(task.job, made.known.expected(task.like)) for task in made.tasks.values() if task.at <= line.now]
        look = Draining(
            line.situation(), made.rule, lasts, left, budget_seconds=math.inf, days=past_days(past, line.now, 0.0)
        )
        raw = look_ahead(look, asked)
        sure = {number: _sure(made.tasks[number].seconds) for number in line.waiting}
        sure_left = {number: _sure(line.ends_at[number] - line.now) for number in line.running}
        lengths = look_ahead(replace(look, lasts=sure, left=sure_left), asked, runs=3)
        arrivals = foresee(look, line, asked, made.tasks.values())
        odds = _middle([foresee(look, line, asked, other) for other in self.others], asked)
        correction = Correction.of(self.past(line))
        for number in asked:
            found = (raw[number], lengths[number], odds[number], arrivals[number])
            if all(outlook.start_seconds is not None for outlook in found):
                self.told[number] = Told(line.now, raw[number], correction.apply(raw[number]), *found[1:])

    def past(self, line: Timeline) -> list[tuple[float, float]]:
        """What was estimated and what came, in seconds, of jobs that have started, and of those that should have."""
        found = []
        for number, told in self.told.items():
            estimated, came = told.raw.start_seconds or 0.0, line.first_starts.get(number, line.now) - told.at
            if came >= LEAST_SECONDS and (number in line.first_starts or came > estimated):
                found.append((estimated, came))
        return found


def foresee(look: Draining, line: Timeline, asked: list[int], tasks: Iterable[Task]) -> dict[int, Outlook]:
    """The outlook of jobs when it is known what will be submitted, and only learned how long jobs take."""
    coming = {AHEAD + task.job.number: task for task in tasks if task.at > line.now}
    known = {**look.lasts, **{number: _sure(task.seconds) for number, task in coming.items()}}
    ahead = Timeline(
        replace(look.situation, estimates=Known(known, look.left, line.now)),
        look.rule,
        lambda job, _: known[job.number].p50_seconds if job.number in known else HOUR,  # one that was stopped
        left={number: duration.p50_seconds for number, duration in look.left.items()},
    )
    for number, task in coming.items():
        ahead.at(task.at, partial(ahead.submit, replace(task.job, number=number)))
    ahead.plan()
    for _ in range(PASSES):
        if ahead.first_starts.keys() >= set(asked) or not ahead.step(GRAIN * (ahead.now - line.now)):
            break
    starts = {number: at - line.now for number, at in ahead.first_starts.items()}
    ends = {number: start + look.lasts[number].p50_seconds for number, start in starts.items() if number in look.lasts}
    return {number: Outlook((), starts.get(number), 0.0, None, ends.get(number), None) for number in asked}


def _middle(found: Sequence[Mapping[int, Outlook]], asked: list[int]) -> dict[int, Outlook]:
    """For each job the middle one of several outlooks."""

    def start(outlook: Outlook) -> float:
        return math.inf if outlook.start_seconds is None else outlook.start_seconds

    return {number: sorted((one[number] for one in found), key=start)[len(found) // 2] for number in asked}


def _sure(seconds: float) -> Duration:
    return Duration.of([(max(1.0, seconds), 1.0)])


def rows(asking: Asking, made: Run, line: Timeline) -> list[str]:
    """The table of errors, as shares of what came."""
    kinds: dict[str, Callable[[Told], Outlook]] = {
        "as drained": lambda told: told.raw,
        "as told": lambda told: told.corrected,
        "if lengths were known": lambda told: told.lengths_known,
        "if the odds of arrivals were known": lambda told: told.odds_known,
        "if arrivals were known": lambda told: told.arrivals_known,
    }
    found = []
    for name, kind in kinds.items():
        starts = [
            (kind(told).start_seconds or 0.0, line.first_starts[number] - told.at)
            for number, told in asking.told.items()
        ]
        found.append(_row(f"start, {name}", starts))
    whole = {number for number, task in made.tasks.items() if task.seconds == task.full_seconds}  # that did not fail
    for name, kind in kinds.items():
        ends = [
            (kind(told).end_seconds or 0.0, line.ends[number] - told.at)
            for number, told in asking.told.items()
            if number in whole
        ]
        found.append(_row(f"end of a job that waits, {name}", ends))
    ends = [(end - at, line.ends[number] - at) for number, (at, end) in asking.ends.items() if number in whole]
    found.append(_row("end of a job that runs", ends))
    return found


def _row(name: str, pairs: Iterable[tuple[float, float]]) -> str:
    errors = [(told - came) / came for told, came in pairs if came >= LEAST_SECONDS]
    if not errors:
        return f"| {name} | 0 | - | - |"
    size, bias = statistics.median(map(abs, errors)), statistics.median(errors)
    return f"| {name} | {len(errors)} | {100 * size:.1f} | {100 * bias:+.1f} |"


def inside(asking: Asking, line: Timeline) -> float:
    """The share of starts that lay in the range that was told."""
    found = []
    for number, told in asking.told.items():
        came, high = line.first_starts[number] - told.at, told.corrected.start_high_seconds
        if came >= LEAST_SECONDS:
            found.append(told.corrected.start_low_seconds <= came <= (math.inf if high is None else high))
    return statistics.mean(found) if found else 1.0
