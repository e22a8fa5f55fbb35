"""Points of a user's own curves, taken at any rate and thinned to what can be sent and stored. Imports no torch."""

import math
import re
from dataclasses import dataclass, field
from typing import Any

MOST_POINTS = 250  # of one curve between two ``take``s
MOST_CURVES = 200  # more names than these are refused by the supervisor
_MOST_NOTES = 20
_COUNT_LIMIT = 2**53
_UNFIT = re.compile(r"[^A-Za-z0-9_./:-]")

Points = tuple[str, list[int], list[float]]  # name, steps (strictly rising), values (finite)


@dataclass(slots=True)
class _Curve:
    name: str
    last: int = -1  # the highest step so far
    seen: int = 0  # since the last ``take``
    stride: int = 1  # of so many points one is kept
    held: tuple[int, float] | None = None  # the last one that was not: no curve may lack its end
    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


class Curves:
    """What was logged and not yet taken. Not safe between threads by itself."""

    def __init__(self) -> None:
        self.latest: dict[str, float] = {}  # of each curve
        self.nan: str | None = None  # where a loss was NaN or infinite for the first time
        self._curves: dict[str, _Curve] = {}  # by the name as it was given
        self._named: dict[str, _Curve] = {}
        self._notes: list[str] = []
        self._told: set[str] = set()

    def __len__(self) -> int:
        return len(self._named)

    def add(self, key: str, step: int, value: Any) -> None:
        """Keep a point: of two of the same step the later one; whatever cannot be kept leaves a note, once.

        Args:
            key: Any text; characters that a name cannot have become ``_``.
            step: Not below that of the point before.
            value: What ``float`` takes: a number, a tensor or an array of one element.
        """
        curve = self._curves.get(key) or self._begin(str(key))
        number = value if type(value) is float else _number(value)
        if curve is None or number is None:
            why = "it is no number" if curve else f"there are {MOST_CURVES} others"
            self._note(f"the metric {str(key)[:60]} is left out: {why}")
        elif number - number != 0:  # NaN or an infinity
            self._not_finite(curve.name, step, number)
        elif step < curve.last or not 0 <= step < _COUNT_LIMIT:
            self._note(f"points of {curve.name} are left out: step {step} came after step {curve.last}")
        else:
            self._keep(curve, step, number)

    def take(self) -> list[Points]:
        """What was kept since the last time."""
        taken = []
        for curve in self._named.values():
            if curve.held is not None:
                curve.steps.append(curve.held[0])
                curve.values.append(curve.held[1])
            if curve.steps:
                taken.append((curve.name, curve.steps, curve.values))
            curve.stride = 1 << max(0, (curve.seen - 1) // MOST_POINTS).bit_length()
            curve.steps, curve.values, curve.held, curve.seen = [], [], None, 0
        return taken

    def take_notes(self) -> list[str]:
        """Sentences about what was left out, each one once."""
        taken, self._notes = self._notes, []
        return taken

    def _begin(self, key: str) -> _Curve | None:
        name = _UNFIT.sub("_", key)[:100] or "_"
        name = name if name[0].isalnum() or name[0] == "_" else f"_{name[1:]}"
        if name not in self._named and len(self._named) >= MOST_CURVES:
            return None
        return self._curves.setdefault(key, self._named.setdefault(name, _Curve(name)))

    def _keep(self, curve: _Curve, step: int, value: float) -> None:
        self.latest[curve.name] = value
        if step == curve.last:
            _replace(curve, step, value)
            return
        curve.last = step
        curve.seen += 1
        if curve.seen % curve.stride:
            curve.held = step, value
            return
        curve.held = None
        curve.steps.append(step)
        curve.values.append(value)
        if len(curve.steps) > MOST_POINTS:
            del curve.steps[0::2], curve.values[0::2]
            curve.stride *= 2
            self._note(f"{curve.name} is logged faster than {MOST_POINTS} points can be sent at a time: it is thinned")

    def _not_finite(self, name: str, step: int, value: float) -> None:
        self._note(f"{name} is {value} at step {step}: such values are left out of the curve")
        if "loss" in name.lower() and self.nan is None:
            self.nan = f"{name} is {value} at step {step}"

    def _note(self, text: str) -> None:
        kind = text.partition(":")[0].partition(" is ")[0]
        if kind not in self._told and len(self._told) < _MOST_NOTES:
            self._told.add(kind)
            self._notes.append(text)


def _replace(curve: _Curve, step: int, value: float) -> None:
    """Let a later value of the same step count, unless the earlier one is on its way."""
    if curve.held is not None and curve.held[0] == step:
        curve.held = step, value
    elif curve.steps and curve.steps[-1] == step:
        curve.values[-1] = value


def _number(value: Any) -> float | None:
    if isinstance(value, str | bytes | bytearray):
        return None  # float() would read them
    try:
        return float(value.detach() if hasattr(value, "detach") else value)
    except OverflowError:
        return math.inf
    except Exception:  # whatever a user's object raises: a metric is no reason to end a training
        return None
