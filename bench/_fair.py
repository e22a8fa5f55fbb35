"""How fairly a fleet was shared: what each team got against what it was entitled to while others wanted it too.

Entitled is what a fair server without jobs to cut would have given: at every moment it divides the GPUs that were in
use among the teams that have work left, by weight, nobody more than that work; what one team leaves is divided among
the others (max-min, or water filling). Got and entitled are summed over a window, and Jain's index taken of
got / entitled: 1 when all got their due alike. So a team that asks for less than its part, and gets it, is treated
fairly, and a flood is entitled to its part alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from _week import DAY, HOUR, TEAMS, WEIGHTS

STEP_SECONDS = HOUR / 2
WINDOW_SECONDS = 2 * DAY  # shorter than the half-life of shares, a week: what is made good later counts as unfair
EVERY_SECONDS = 6 * HOUR


def jain(values: Sequence[float]) -> float:
    """Jain's index: 1 when all are equal, 1/n when one has everything."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def entitled(asked: Mapping[int, float], capacity: float) -> dict[int, float]:
    """Divide a capacity by weight, so that nobody gets more than asked for."""
    found, open_teams = dict.fromkeys(asked, 0.0), {team for team, amount in asked.items() if amount > 0}
    while open_teams and capacity > 1e-9:
        weights = sum(WEIGHTS.get(team, 1.0) for team in open_teams)
        level = capacity / weights
        sated = {team for team in open_teams if asked[team] - found[team] <= level * WEIGHTS.get(team, 1.0)}
        for team in sated or open_teams:
            share = asked[team] - found[team] if sated else level * WEIGHTS.get(team, 1.0)
            found[team] += share
            capacity -= share
        open_teams -= sated or open_teams
    return found


def used(made: Any, line: Any, seconds: float) -> dict[int, list[float]]:
    """For each team the mean number of GPUs that its jobs held in every step until then."""
    spans = [(stay.number, stay.from_seconds, stay.to_seconds) for stay in line.stays]
    return _steps(made, [*spans, *((one.number, one.placed_at, line.now) for one in line.running.values())], seconds)


def due(made: Any, got: Mapping[int, Sequence[float]]) -> dict[int, list[float]]:
    """For each team the mean number of GPUs that it was entitled to in every step."""
    steps = len(got[1])
    comes = {team: [0.0] * steps for team in TEAMS}  # GPU-seconds of work
    for task in made.tasks.values():
        if (step := int(task.at / STEP_SECONDS)) < steps:
            comes[task.job.team][step] += task.gpu_seconds
    found: dict[int, list[float]] = {team: [] for team in TEAMS}
    left = dict.fromkeys(TEAMS, 0.0)
    for step in range(steps):
        asked = {team: (left[team] + comes[team][step]) / STEP_SECONDS for team in TEAMS}
        for team, amount in entitled(asked, sum(values[step] for values in got.values())).items():
            found[team].append(amount)
            left[team] = (asked[team] - amount) * STEP_SECONDS
    return found


def _steps(made: Any, spans: Sequence[tuple[int, float, float]], seconds: float) -> dict[int, list[float]]:
    steps = int(seconds / STEP_SECONDS)
    found = {team: [0.0] * steps for team in TEAMS}
    for number, start, end in spans:
        job = made.tasks[number].job
        for step in range(int(start / STEP_SECONDS), min(steps, int(end / STEP_SECONDS) + 1)):
            inside = min(end, (step + 1) * STEP_SECONDS) - max(start, step * STEP_SECONDS)
            found[job.team][step] += job.demand.gpus * max(0.0, inside) / STEP_SECONDS
    return found


def fairness(made: Any, line: Any, seconds: float) -> list[float]:
    """The weighted Jain index of the window that ends at each quarter of a day."""
    got = used(made, line, seconds)
    steps, entitlements = len(got[1]), due(made, got)
    window, every = min(steps, round(WINDOW_SECONDS / STEP_SECONDS)), round(EVERY_SECONDS / STEP_SECONDS)
    found = []
    for end in range(window, steps + 1, every):
        sums = [(sum(got[team][end - window : end]), sum(entitlements[team][end - window : end])) for team in TEAMS]
        found.append(jain([received / total for received, total in sums if total]))
    return found
