"""Critical errors of GPUs, heard by a process that listens all the time, so that none falls between two looks.

NVML tells only what comes while somebody listens, and only of GPUs that were there when it was asked: who listens is
replaced once a GPU is there that it does not hear, and ends only after the next one listens.
"""

import json
import subprocess
import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any

from stoker.log import Events
from stoker.workers import processes

events = Events(__name__)
READY_SECONDS = 30.0
END_SECONDS = 5.0  # for its last words; the driver may hold it for ever


class Listener:
    """Who listens now, and what was heard; used by one thread, closed by any."""

    def __init__(self, command: Sequence[str]) -> None:
        """Nobody listens before the first ``hear``; ``command`` starts one that does."""
        self._command = tuple(command)
        self._lock = threading.Lock()  # of what was heard
        self._heard: dict[str, set[int]] = {}
        self._ear: _Ear | None = None
        self._closed = False

    def hear(self, gpus: Collection[str]) -> dict[str, list[int]]:
        """The errors of these GPUs, by UUID, since this was asked of them last; from now on all of them are heard."""
        if not (self._closed or (self._ear and self._ear.hears(gpus))):
            self._replace(gpus)
        with self._lock:
            return {gpu: sorted(self._heard.pop(gpu)) for gpu in gpus if gpu in self._heard}

    def heard(self, gpu: str) -> list[int]:
        """The errors of a GPU that ``hear`` has not told yet; it still will. Used by any thread."""
        with self._lock:
            return sorted(self._heard.get(gpu, ()))

    def close(self) -> None:
        """Listen no more; nobody is waited for."""
        self._closed = True
        if self._ear is not None:
            self._ear.kill()

    def _replace(self, gpus: Collection[str]) -> None:
        former, self._ear = self._ear, _Ear(self._command, self._note)
        if not self._ear.wait_ready():
            events.warning("errors_not_heard", uuids=sorted(gpus))
        if former is not None:
            former.finish()
        if self._closed:
            self._ear.kill()

    def _note(self, gpu: str, xid: int) -> None:
        with self._lock:
            self._heard.setdefault(gpu, set()).add(xid)


class _Ear:
    """One process that listens until its standard input ends, and the thread that reads what it says."""

    def __init__(self, command: Sequence[str], note: Callable[[str, int], None]) -> None:
        self._process: Any = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        processes.KEPT.add(self._process.pid)
        self._note, self._hears = note, frozenset[str]()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._read, name="listener", daemon=True)
        self._thread.start()

    def hears(self, gpus: Collection[str]) -> bool:
        """Whether it listens to all of these."""
        return self._hears.issuperset(gpus)

    def wait_ready(self) -> bool:
        """Wait until it listens; False: it has ended instead, or the driver does not answer."""
        return self._ready.wait(READY_SECONDS) and bool(self._hears)

    def finish(self) -> None:
        """Wait for its last words and its end."""
        self.mute()
        self._thread.join(END_SECONDS)
        self.kill()

    def mute(self) -> None:
        """End its standard input, as the kernel does when this process ends: it tells what has come, and ends."""
        self._process.stdin.close()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def _read(self) -> None:
        """Take its lines: ``{"hears": [UUID, …]}``, at first and when that changes, and ``{"gpu": UUID, "xid": N}``."""
        try:
            for line in self._process.stdout:
                said = json.loads(line)
                if "hears" in said:
                    self._hears = frozenset(said["hears"])
                    self._ready.set()
                else:
                    self._note(said["gpu"], int(said["xid"]))
        finally:  # its end, or words that are none
            self._hears = frozenset()
            self._ready.set()
            self.kill()
            self._process.wait()
            self._process.stdout.close()
            self.mute()
            processes.KEPT.discard(self._process.pid)
