"""The moments of an attempt at which a kill tells most, and how often each was hit."""

from collections import Counter
from collections.abc import Iterable

from tests.faults.history import Entry

PHASES = {  # what is true of an attempt that is hit in the phase
    "placed": "its message was taken, and it is not claimed",
    "claimed": "it is claimed, and no trainer was started",
    "before the first checkpoint": "its trainer has made a step and stored nothing",
    "inside a write": "half of a checkpoint's bytes are on the disk",
    "between bytes and row": "a checkpoint's chunks are stored, and its row is not",
    "evaluating": "its trainer reads the test images with the final weights",
    "result before commit": "its result is complete, and is not committed",
    "draining": "its worker was told to stop, its trainer has ended, and it is not handed back",
}
LEAST = 5  # hits of each phase, or the run says too little


def count(history: Iterable[Entry]) -> Counter[str]:
    """Hits by phase; 0 for a phase that was never hit."""
    found = Counter(dict.fromkeys(PHASES, 0))
    found.update(entry["phase"] for entry in history if entry.kind == "hit")
    return found


def missed(history: Iterable[Entry]) -> dict[str, int]:
    """The phases that were hit too seldom, and how often."""
    found = count(history)
    return {phase: found[phase] for phase in PHASES if found[phase] < LEAST}
