"""How long jobs take: learned from those that were like them, and from their own progress. Pure.

A duration is a distribution, not a number. What is asked of it are percentiles: the middle for estimates, the 90th for
backfill. A walltime only ever caps it: what people write there says when they would give up.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any

ENOUGH = 2.0  # like jobs; where there are fewer, the next wider group fills up: with 5 lengths are told a tenth worse
KEPT = 64  # of each group, the latest
UNSURE = 0.35  # of the logarithm, one like job: the next takes half as long again or less, four times of five
UNKNOWN_SECONDS = (300.0, 1800.0, 3600.0, 4 * 3600.0)  # when no job has ever ended here
TRUSTED = 0.02  # of its steps: from there on a job's own pace says more than all the others
FARTHEST_SECONDS = 10 * 365 * 86_400.0  # nothing is told beyond: dates have an end
SPEED_FIELDS = ("dataset", "model", "batch_size", "precision", "code", "command", "path", "checkpoint", "processes")

Key = tuple[object, ...]


def later(now: datetime, seconds: float) -> datetime:
    """The moment so many seconds after another, or the farthest that is told."""
    return now + timedelta(seconds=min(seconds, FARTHEST_SECONDS))


@dataclass(frozen=True, slots=True)
class Like:
    """What makes jobs take equally long."""

    keys: tuple[Key, ...]  # of the groups that a job belongs to, the narrowest first
    work: float = 1.0  # epochs of a training; a job of another kind is one piece
    limit_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Pace:
    """How far an attempt came, and how fast."""

    seconds: float  # since its first step
    done: float  # share of all steps that it made itself in that time, 0 to 1
    left: float  # share that is to be made still, 0 to 1

    @property
    def left_seconds(self) -> float:
        """What is left at this speed."""
        return self.seconds * self.left / self.done

    @property
    def whole_seconds(self) -> float:
        """What the whole job takes at this speed, what others made of it too."""
        return self.seconds / self.done


@dataclass(frozen=True, slots=True)
class Duration:
    """A duration that is not known: possible values in seconds, ascending, and the weight of each."""

    seconds: tuple[float, ...]
    weights: tuple[float, ...]
    unsure: float = 0.0  # of the logarithm, on top of how the values differ

    @classmethod
    def of(cls, values: Iterable[tuple[float, float]], unsure: float = 0.0) -> "Duration":
        """Make one of (seconds, weight), in any order; at least one."""
        found = sorted(values)
        return cls(tuple(value for value, _ in found), tuple(weight for _, weight in found), unsure)

    def quantile(self, share: float) -> float:
        """The seconds that so great a share (0 to 1) of like jobs does not exceed."""
        total = sum(self.weights)
        middles = [after - weight / 2 for after, weight in zip(accumulate(self.weights), self.weights, strict=True)]
        at = share * total
        place = bisect_left(middles, at)
        if place == 0:
            value = self.seconds[0]
        elif place == len(middles):
            value = self.seconds[-1]
        else:
            low, high = middles[place - 1], middles[place]
            part = (at - low) / (high - low)
            value = self.seconds[place - 1] + part * (self.seconds[place] - self.seconds[place - 1])
        return min(value * math.exp(self.unsure * (2 * share - 1)), FARTHEST_SECONDS)

    @property
    def p50_seconds(self) -> float:
        """Half of like jobs take no longer."""
        return self.quantile(0.5)

    @property
    def p90_seconds(self) -> float:
        """Nine of ten like jobs take no longer: what backfill counts on."""
        return self.quantile(0.9)

    def after(self, ran_seconds: float) -> "Duration":
        """What is left when a job has run so long without an end, and nothing else is known of it."""
        left = [
            (value - ran_seconds, weight)
            for value, weight in zip(self.seconds, self.weights, strict=True)
            if value > ran_seconds
        ]
        if left:
            return Duration.of(left, self.unsure)
        again = max(ran_seconds, 60.0)  # it outlived all that were like it: as long again, give or take
        return Duration.of([(again / 4, 1.0), (again, 1.0), (again * 2, 1.0)])

    def towards(self, pace: Pace) -> "Duration":
        """What is left, corrected by the job's own pace: the further it came, the less the others count."""
        trust = pace.done / (pace.done + TRUSTED)
        live = max(pace.left_seconds, 0.001)
        pulled = tuple(max(value, 0.001) ** (1 - trust) * live**trust for value in self.seconds)
        return Duration(pulled, self.weights, self.unsure * (1 - trust))

    def within(self, limit_seconds: float | None) -> "Duration":
        """The same, cut off at a limit."""
        if limit_seconds is None:
            return self
        return Duration(tuple(min(value, limit_seconds) for value in self.seconds), self.weights, self.unsure)


def like(
    spec: Mapping[str, Any], *, owner_id: int, team_id: int, device: str | None = None, machine: str | None = None
) -> Like:
    """The groups that a job belongs to.

    Args:
        spec: As stored.
        owner_id: Whose job it is.
        team_id: Of the owner.
        device: cpu or gpu, where it runs; None before that is known.
        machine: Device model and CPU model, where it made its first step.
    """
    section = spec.get(spec["kind"]) or {}
    recipe = tuple((name, repr(section[name])) for name in SPEED_FIELDS if name in section)
    program = (spec["kind"], section.get("model"), repr((section.get("command") or [])[:2]), section.get("path"))
    resources = spec["resources"]
    where = device or resources["device"]
    size = (where, resources["gpus"] if where == "gpu" else resources["cpus"])
    keys: tuple[Key, ...] = (
        ("owner", owner_id, recipe, size),
        ("team", team_id, recipe, size),
        ("recipe", recipe, size),
        ("recipe", recipe, where),
        ("program", owner_id, program, where),
        ("kind", team_id, spec["kind"]),
        ("kind", spec["kind"]),
    )
    if machine is not None:
        keys = (("owner", owner_id, recipe, size, machine), ("recipe", recipe, size, machine), *keys)
    return Like(keys, float(section.get("epochs") or 1), spec.get("time_limit"))


class Durations:
    """What is known of jobs that have ended."""

    def __init__(self, ended: Iterable[tuple[Like, float]] = ()) -> None:
        """Learn from jobs and the seconds that each ran, the latest first."""
        self._groups: dict[Key, list[float]] = {}
        self.count = 0  # of jobs that have ended
        for one, seconds in ended:
            self.count += 1
            for key in one.keys:
                group = self._groups.setdefault(key, [])
                if len(group) < KEPT:
                    group.append(seconds / one.work)

    def add(self, one: Like, seconds: float) -> None:
        """Learn of one more job that has ended now."""
        self.count += 1
        for key in one.keys:
            group = self._groups.setdefault(key, [])
            group.insert(0, seconds / one.work)
            del group[KEPT:]

    @property
    def nothing(self) -> bool:
        """Whether no job has ever told how long it takes: then nobody can say when another one starts."""
        return not self._groups

    def with_running(self, running: Iterable[tuple[Like, Pace]]) -> "Durations":
        """The same, and what jobs that run tell of those like them while hardly any of these have ended.

        Later they would not do: of those that run at one moment more are long than of those that end.
        """
        found = Durations()
        found._groups, found.count = dict(self._groups), self.count
        for one, own in running:
            if own.done < TRUSTED:
                continue
            for key in one.keys:
                if len(self._groups.get(key, ())) < ENOUGH:
                    found._groups[key] = [*found._groups.get(key, ()), own.whole_seconds / one.work][-KEPT:]
        return found

    def expected(self, one: Like) -> Duration:
        """How long a job runs from its start to its end, if nothing stops it."""
        weighted: list[tuple[float, float]] = []
        missing = ENOUGH
        nearest = 0
        for key in one.keys:
            group = self._groups.get(key, [])
            if group:
                nearest = nearest or len(group)
                weight = 1.0 if len(group) >= missing else min(1.0, missing / len(group))
                weighted += [(value * one.work, weight) for value in group]
                missing -= len(group)
            if missing <= 0:
                break
        if missing > 0:
            weighted += [(value, missing / (2 * len(UNKNOWN_SECONDS))) for value in UNKNOWN_SECONDS]
        return Duration.of(weighted, UNSURE / math.sqrt(max(1, nearest))).within(one.limit_seconds)

    def left(self, one: Like, ran_seconds: float, pace: Pace | None = None) -> Duration:
        """How long a running job goes on: by those like it that ran so long, and by its own pace once it has one."""
        rest = self.expected(one).after(ran_seconds)
        if pace is not None and pace.done > 0:
            rest = rest.towards(pace)
        return rest if one.limit_seconds is None else rest.within(max(0.0, one.limit_seconds - ran_seconds))


def pace(progress: Mapping[str, Any] | None, resumed_step: int, seconds: float | None) -> Pace | None:
    """How far an attempt came, from what its trainer reported; None before it made a step, or of unknown length."""
    if not progress or seconds is None or seconds <= 0:
        return None
    step, steps = progress.get("step"), progress.get("steps")
    if not step or not steps or step <= resumed_step:
        return None
    return Pace(seconds, (step - resumed_step) / steps, max(0, steps - step) / steps)
