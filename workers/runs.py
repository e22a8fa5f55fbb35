"""The attempts that run in this process, and what is asked of each."""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from uuid import UUID

from stoker.errors import StokerError
from stoker.jobs.claims import Claimed
from stoker.training.masking import Mask
from stoker.workers.trainers import Trainer


class Asked(IntEnum):
    """What is asked of a run; a higher one replaces a lower one."""

    NOTHING = 0
    STOP = 1  # the worker stops: checkpoint, queue again
    PREEMPT = 2  # checkpoint, queue again
    CANCEL = 3
    CLOSED = 4  # the attempt was taken away: kill the trainer, write nothing


class Interrupted(StokerError):
    """A step of a run was broken off, because something was asked of the run."""

    code = "interrupted"


class Run:
    """One attempt that this process has claimed."""

    def __init__(self, claimed: Claimed, incarnation: UUID, deadline: float) -> None:
        """Begin with the lease of the claim by this incarnation; ``deadline`` in CLOCK_BOOTTIME."""
        self.claimed, self.incarnation, self.deadline = claimed, incarnation, deadline
        self.mask = Mask(claimed.secrets.values())
        self.began = time.monotonic()
        self.frozen_seconds = 0.0  # of its trainers that have ended
        self.asked = Asked.NOTHING
        self.stopping = False  # the worker stops, whatever else was asked
        self.device_fault: str | None = None  # why a device of its own can be used no more
        self._patience_ends = math.inf  # monotonic
        self._lock = threading.Lock()
        self._trainer: Trainer | None = None

    @property
    def id(self) -> UUID:
        """The attempt's."""
        return self.claimed.attempt_id

    @property
    def ran_seconds(self) -> float:
        """From the claim to now, without what its trainer was frozen: what counts for its time_limit."""
        return time.monotonic() - self.began - self.frozen_seconds

    def ask(self, asked: Asked) -> None:
        """Ask for something, from any thread; the thread of the run acts on it at once."""
        with self._lock:
            self.asked = max(self.asked, asked)
            if self._trainer:
                self._trainer.wake()

    def stop(self, patience_seconds: float) -> None:
        """Say that the worker stops; from so many seconds on, nothing waits for a database that is away."""
        with self._lock:
            if not self.stopping:
                self.stopping, self._patience_ends = True, time.monotonic() + patience_seconds
        self.ask(Asked.STOP)

    def lose_device(self, evidence: str) -> None:
        """Say that a device of its own is lost: its trainer is killed, and it runs again elsewhere."""
        with self._lock:
            self.device_fault = self.device_fault or evidence
            if self._trainer:
                self._trainer.wake()

    def may_wait(self) -> bool:
        """Whether a step that the database refuses for the moment is to be tried again."""
        return self.asked is not Asked.CLOSED and time.monotonic() < self._patience_ends

    def attach(self, trainer: Trainer | None) -> None:
        """Say which trainer is to be woken by ``ask``."""
        with self._lock:
            self._trainer = trainer

    def check(self) -> None:
        """Raise Interrupted if anything was asked; called often by steps that take long."""
        if self.asked:
            raise Interrupted(self.asked.name)

    def go_on(self) -> bool:
        """True, for steps of the preparation that are tried again while nothing is asked; else raises Interrupted."""
        self.check()
        return True


class Runs:
    """All of them, by attempt."""

    def __init__(self) -> None:
        """Begin with none."""
        self._lock = threading.Lock()
        self._runs: dict[UUID, Run] = {}
        self._claiming: set[UUID] = set()
        self._patience_seconds: float | None = None  # once all were asked to stop

    @contextmanager
    def claiming(self, attempt: UUID) -> Iterator[None]:
        """Keep an attempt from being taken for one that nobody looks after, until it is held."""
        with self._lock:
            self._claiming.add(attempt)
        try:
            yield
        finally:
            with self._lock:
                self._claiming.discard(attempt)

    def looked_after(self) -> set[UUID]:
        """The attempts that a thread of this process claims or runs at this moment."""
        with self._lock:
            return self._claiming | self._runs.keys()

    @contextmanager
    def holding(self, run: Run) -> Iterator[None]:
        """Keep a run in the list for a while."""
        with self._lock:
            self._runs[run.id] = run
            patience_seconds = self._patience_seconds
        if patience_seconds is not None:
            run.stop(patience_seconds)
        try:
            yield
        finally:
            with self._lock:
                del self._runs[run.id]

    def all(self) -> list[Run]:
        """Those that run now."""
        with self._lock:
            return list(self._runs.values())

    def stop(self, patience_seconds: float) -> None:
        """Ask all to stop, and those that come later too."""
        with self._lock:
            self._patience_seconds = patience_seconds
        for run in self.all():
            run.stop(patience_seconds)

    def close(self) -> None:
        """Tell all that their attempts were taken away."""
        for run in self.all():
            run.ask(Asked.CLOSED)
