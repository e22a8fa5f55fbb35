"""Places at which a worker or a trainer can be made to wait, so that a kill finds it exactly there.

The test arms a place for some jobs, and for so many at most; a process that comes by says so and waits until the place
is disarmed, or until it is killed. Only the launchers in this folder know of places: the product has none.
"""

import json
import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

LOOK_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Waiting:
    """Somebody who waits at a place."""

    point: str
    job: int | None
    attempt: str
    pid: int


class Points:
    """All places, kept as files in one folder that test, workers and trainers share."""

    def __init__(self, folder: Path) -> None:
        """Use ``folder``, which ``make`` makes."""
        self.folder = folder
        self._armed, self._reached = folder / "armed", folder / "reached"

    def make(self) -> None:
        """Make the folders."""
        for folder in (self._armed, self._reached):
            folder.mkdir(parents=True, exist_ok=True)

    def arm(self, point: str, jobs: Collection[int] | None, limit: int) -> None:
        """Let these jobs, or all, wait when they come by; about so many at once."""
        _write(self._armed / point, {"jobs": None if jobs is None else sorted(jobs), "limit": limit})

    def disarm(self, point: str) -> None:
        """Let all who wait there go on, and nobody wait any more; what the dead left is removed."""
        (self._armed / point).unlink(missing_ok=True)
        for waiting in self.waiting(point):
            if not Path(f"/proc/{waiting.pid}").exists():
                self._mark(waiting).unlink(missing_ok=True)

    def waiting(self, point: str) -> list[Waiting]:
        """Who waits there now, or died there."""
        found = []
        for path in sorted(self._reached.glob(f"{point}--*.json")):
            try:
                found.append(Waiting(**json.loads(path.read_text())))
            except FileNotFoundError:
                continue  # it has just gone on
        return found

    def reach(self, point: str, job: int | None, attempt: str) -> None:
        """Come by: wait while the place is armed for this job, unless enough wait there already."""
        limit = self._limit(point, job)
        if len(list(self._reached.glob(f"{point}--*.json"))) >= limit:
            return
        waiting = Waiting(point, job, attempt, os.getpid())
        mark = self._mark(waiting)
        _write(mark, {"point": point, "job": job, "attempt": attempt, "pid": waiting.pid})
        while self._limit(point, job):
            time.sleep(LOOK_SECONDS)
        mark.unlink(missing_ok=True)

    def _mark(self, waiting: Waiting) -> Path:
        return self._reached / f"{waiting.point}--{waiting.attempt}.json"

    def _limit(self, point: str, job: int | None) -> int:
        """How many may wait there; 0: this job does not."""
        try:
            armed = json.loads((self._armed / point).read_text())
        except FileNotFoundError:
            return 0
        return int(armed["limit"]) if armed["jobs"] is None or job in armed["jobs"] else 0


def _write(path: Path, value: object) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(json.dumps(value))
    aside.rename(path)
