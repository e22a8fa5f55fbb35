"""What was done to a system and what it answered, as JSON lines in the order in which it happened."""

import json
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. Kinds and their fields are listed at ``History``."""

    at: float  # seconds since the run began
    kind: str
    fields: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]


class History:
    """Notes from any thread, each written at once.

    =========  =====================================================================
    submit     key, recipe: a client is about to ask for a job
    ack        key, number, status, ms: the API said that the job is accepted
    refused    key, status: the API refused a request that it had to accept
    answer     what, status, ms: any other answer of the API
    asked      what (cancel, preempt), number: accepted by the system
    fault      name, detail: injected, or undone
    skipped    name, why: cannot be injected here
    hit        phase, job, attempt, victim: an attempt was killed in that phase
    flip       checkpoint: a bit of its stored bytes was turned
    died       who, fate: a process ended that nobody had touched
    orphan     pid, title: it outlived the worker that it belonged to
    overlap    job, pids: two trainers of one job computed at the same moment
    left       pid, command: it was still there when all had been stopped
    late       what, seconds, limit: it took longer than was promised
    =========  =====================================================================
    """

    def __init__(self, path: Path | None = None) -> None:
        """Keep the notes in memory, and in a file where one is named."""
        self.entries: list[Entry] = []
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._file = path.open("w") if path else None

    @property
    def now(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began

    def note(self, kind: str, **fields: Any) -> None:
        """Add a line."""
        with self._lock:
            entry = Entry(round(self.now, 4), kind, fields)
            self.entries.append(entry)
            if self._file:
                self._file.write(as_line(entry) + "\n")
                self._file.flush()

    def of(self, *kinds: str) -> list[Entry]:
        """The notes of these kinds, oldest first."""
        with self._lock:
            return [entry for entry in self.entries if entry.kind in kinds]

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()


def as_line(entry: Entry) -> str:
    """An entry as one line of JSON."""
    return json.dumps({"at": entry.at, "kind": entry.kind, **entry.fields}, default=str)


def parse(lines: Iterable[str]) -> Iterator[Entry]:
    """Read what ``as_line`` wrote; raises ValueError for anything else."""
    for line in lines:
        document = json.loads(line)
        if not isinstance(document, dict) or not {"at", "kind"} <= document.keys():
            raise ValueError(f"no line of a history: {line[:80]!r}")
        yield Entry(float(document.pop("at")), str(document.pop("kind")), document)
