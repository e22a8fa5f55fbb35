"""What a run reports, gathered and written in batches, so that a chatty trainer costs the database no more."""

import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

from sqlalchemy import exc
from sqlalchemy.orm import Session, sessionmaker

from stoker.jobs.records import Batch, write_batch
from stoker.log import Events
from stoker.training.masking import Mask
from stoker.workers.transactions import is_passing, once, repeat

events = Events(__name__)
POINTS_LIMIT = 200_000  # kept while the database is away; later ones are dropped, with a note
LOG_LIMIT = 2 * 1024 * 1024
NOTES_LIMIT = 100
LONGEST_PAUSE_SECONDS = 2.0


class Report:
    """Gathers, and writes when a batch is due.

    The thread that watches gathers and writes; the one that stores a checkpoint writes too, before its row. A batch
    keeps its number and its content until the database has said that it is stored.
    """

    def __init__(
        self,
        sessions: sessionmaker[Session],
        attempt: UUID,
        incarnation: UUID,
        batch_seconds: float,
        mask: Mask | None = None,
    ) -> None:
        """Write for one attempt, at most every ``batch_seconds``, what ``mask`` leaves; a log comes masked already."""
        self._sessions, self._attempt, self._incarnation = sessions, attempt, incarnation
        self._mask = mask or Mask()
        self._pause = self._batch_seconds = batch_seconds
        self._next = time.monotonic() + batch_seconds  # the first step is reported before the first batch
        self._gathering = threading.Lock()  # of what was not yet cut into a batch; held for moments
        self._writing = threading.Lock()  # of the batch under way; held for a transaction, or an outage
        self._cut: Batch | None = None
        self._number = 0
        self._progress: dict[str, Any] | None = None
        self._cell: dict[str, Any] = {}  # of a notebook, the one that runs
        self._metrics: dict[str, tuple[list[int], list[float]]] = {}
        self._points, self._log, self._notes = 0, "", list[str]()

    def progress(self, message: dict[str, Any]) -> None:
        """Keep the latest progress."""
        with self._gathering:
            self._progress = {name: value for name, value in message.items() if name != "type"} | self._cell

    def cell(self, message: dict[str, Any]) -> None:
        """Keep which cell of a notebook runs: part of the progress from now on, and all of it until there is more."""
        index, count = message["index"], message["count"]
        with self._gathering:
            self._cell = {"cell": {"index": index, "count": count, "source": self._mask.text(message["source"])}}
        begun = {"epoch": 0, "epochs": 0, "step": max(0, index - 1), "steps": count, "images_per_second": None}
        self.progress({"phase": "train", **begun})

    def metrics(self, message: dict[str, Any]) -> None:
        """Keep points of a curve."""
        if self._mask.text(message["key"]) != message["key"]:
            self.note(f"points of {message['key']} were dropped: a name that holds a secret is not kept")
            return
        if self._points + len(message["steps"]) > POINTS_LIMIT:
            self.note(f"points of {message['key']} and others were dropped: the database was away for too long")
            return
        with self._gathering:
            steps, values = self._metrics.setdefault(message["key"], ([], []))
            steps += message["steps"]
            values += map(float, message["values"])
            self._points += len(message["steps"])

    def log(self, text: str) -> None:
        """Keep a piece of the log."""
        with self._gathering:
            if len(self._log) < LOG_LIMIT:
                self._log += text

    def note(self, text: str) -> None:
        """Keep a sentence for the job's events."""
        text = self._mask.text(text)
        with self._gathering:
            if text not in self._notes and len(self._notes) < NOTES_LIMIT:
                self._notes.append(text)

    @property
    def wait_seconds(self) -> float:
        """Seconds until a batch may be written."""
        return max(0.0, self._next - time.monotonic())

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write."""
        return self._cut is None and self._progress is None and not (self._metrics or self._log or self._notes)

    def write_if_due(self) -> None:
        """Write a batch if it is time; when the database is away, keep it and try again later.

        Raises AttemptClosed.
        """
        if self.empty or time.monotonic() < self._next:
            return
        if not self._writing.acquire(blocking=False):  # a checkpoint's thread is at it, and may wait for the database
            self._next = time.monotonic() + self._pause
            return
        try:
            once(self._sessions, self._write)
        except (exc.DBAPIError, exc.TimeoutError) as error:
            if not is_passing(error):
                raise
            self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
            events.warning("batch_postponed", error=str(error.args[0]).splitlines()[0][:300])
        else:
            self._cut = None
            self._pause = self._batch_seconds
        finally:
            self._writing.release()
        self._next = time.monotonic() + self._pause

    def write_all(self, go_on: Callable[[], bool]) -> None:
        """Write all that was gathered before this call; waits for the database while ``go_on()``.

        Raises AttemptClosed, and what the database raises that will not pass.
        """
        with self._writing:
            while not self.empty:
                again = self._cut is not None  # cut earlier: what came since then is in the next
                repeat(self._sessions, self._write, go_on=go_on, what="batch")
                self._cut = None
                if not again:
                    return

    def drop(self) -> None:
        """Give up what was gathered: the database will never take it."""
        with self._writing, self._gathering:
            self._cut = None
            self._take()

    def _write(self, session: Session) -> None:
        with self._gathering:
            if self._cut is None:
                self._number += 1
                self._cut = self._take()
        write_batch(session, self._attempt, self._incarnation, self._cut)

    def _take(self) -> Batch:
        taken = Batch(
            number=self._number,
            progress=self._progress,
            metrics=dict(self._metrics),
            log=self._log,
            notes=tuple(self._notes),
        )
        self._progress, self._metrics, self._points, self._log, self._notes = None, {}, 0, "", []
        return taken
