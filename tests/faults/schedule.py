"""Which faults come in which order: a pure function of the seed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault to come."""

    fault: str
    seed: int  # of the choices that can be made only when it comes: which worker, which job
    seconds: float  # how long it lasts, as a share of what is usual for it: 0.5 to 1.5
    pause_seconds: float  # before it

    def __str__(self) -> str:
        return f"{self.fault}×{self.seconds:.1f}"


def plan(seed: int, faults: Sequence[str], count: int, pause_seconds: float) -> list[Planned]:
    """Each fault once in random order, and again until there are ``count``; with fewer, some of them."""
    dice = random.Random(seed)
    names: list[str] = []
    while len(names) < count:
        names += dice.sample(list(faults), len(faults))
    return [
        Planned(name, dice.getrandbits(32), dice.uniform(0.5, 1.5), dice.uniform(0.0, 2 * pause_seconds))
        for name in names[:count]
    ]
