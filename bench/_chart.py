"""The picture of a simulated week: who had how many GPUs, hour by hour, under each planner. Plain SVG."""

from collections.abc import Mapping
from typing import Any

from _week import DAY, GPUS, HOUR, TEAMS

COLOURS = {1: "#4e79a7", 2: "#59a14f", 3: "#f28e2b", 4: "#b07aa1", 5: "#76b7b2", 6: "#e15759"}
WIDTH, HEIGHT, GAP, LEFT, TOP = 720, 110, 34, 40, 30
STEP_HOURS = 2


def draw(runs: Mapping[str, Any], days: float) -> str:
    """An SVG with one panel for each planner; ``runs`` holds (run, timeline) by name."""
    tall = TOP + len(runs) * (HEIGHT + GAP) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 10} {tall}" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for place, (team, name) in enumerate(TEAMS.items()):
        at = LEFT + place * 90
        parts.append(f'<rect x="{at}" y="6" width="11" height="11" fill="{COLOURS[team]}"/>')
        parts.append(f'<text x="{at + 16}" y="16">{name}</text>')
    for place, (name, (made, line)) in enumerate(runs.items()):
        parts += _panel(TOP + place * (HEIGHT + GAP), name, hours(made, line, days), days)
    return "\n".join([*parts, "</svg>\n"])


def hours(made: Any, line: Any, days: float) -> dict[int, list[float]]:
    """For each team its mean number of GPUs in every step of two hours."""
    steps = int(days * DAY / HOUR / STEP_HOURS)
    found = {team: [0.0] * steps for team in TEAMS}
    width = STEP_HOURS * HOUR
    for stay in line.stays:
        job = made.tasks[stay.number].job
        for step in range(int(stay.from_seconds / width), min(steps, int(stay.to_seconds / width) + 1)):
            inside = min(stay.to_seconds, (step + 1) * width) - max(stay.from_seconds, step * width)
            found[job.team][step] += job.demand.gpus * max(0.0, inside) / width
    return found


def _panel(top: float, name: str, found: dict[int, list[float]], days: float) -> list[str]:
    parts = [f'<text x="{LEFT}" y="{top + 12}" font-weight="bold">{name}</text>']
    base, steps = top + 18 + HEIGHT - 18, len(found[1])
    across, up = WIDTH / steps, (HEIGHT - 18) / GPUS
    under = [0.0] * steps
    for team, values in found.items():
        over = [low + value for low, value in zip(under, values, strict=True)]
        points = [(LEFT + (step + 0.5) * across, base - height * up) for step, height in enumerate(over)]
        back = [(LEFT + (step + 0.5) * across, base - height * up) for step, height in enumerate(under)]
        path = " ".join(f"{x:.0f},{y:.1f}" for x, y in [*points, *reversed(back)])
        parts.append(f'<polygon points="{path}" fill="{COLOURS[team]}"/>')
        under = over
    parts.append(f'<text x="{LEFT - 6}" y="{base - GPUS * up + 4:.0f}" text-anchor="end">{GPUS}</text>')
    parts.append(f'<text x="{LEFT - 6}" y="{base:.0f}" text-anchor="end">0</text>')
    for day in range(int(days) + 1):
        at = LEFT + day * WIDTH / days
        parts.append(f'<text x="{at:.0f}" y="{base + 14:.0f}" text-anchor="middle">day {day}</text>')
    return parts
