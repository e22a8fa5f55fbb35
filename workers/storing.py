"""Checkpoints and test images from a trainer's folder into the database, beside the watching."""

import contextlib
import io
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.orm import Session, sessionmaker

from stoker.errors import AttemptClosed
from stoker.jobs import blobs, records
from stoker.jobs.attempts import OutputRecord
from stoker.log import Events, carried
from stoker.workers import handover, outputs
from stoker.workers.findings import FindingsRefused, check_images, digest_of, open_handed_in, pieces
from stoker.workers.reporting import Report
from stoker.workers.runs import Asked, Run
from stoker.workers.transactions import persist, repeat

T = TypeVar("T")
events = Events(__name__)


class Storing:
    """A thread of its own for what takes long, started with the first checkpoint: a stop must not wait for it."""

    def __init__(self, sessions: sessionmaker[Session], run: Run, scratch: Path, report: Report) -> None:
        """Store for one run; what it reported before a checkpoint is written before the checkpoint's row."""
        self._sessions, self._run, self._scratch, self._report = sessions, run, scratch, report
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="storing")
        self._waiting: list[dict[str, Any]] = []  # announced checkpoints that are not being stored yet
        self._lock = threading.Lock()  # of that list
        self.refused: list[str] = []  # for the job's log

    def checkpoint(self, message: dict[str, Any]) -> None:
        """Store a checkpoint that the trainer announced, in the order of the announcements.

        Who announces faster than the database stores would have a stop wait for all of them: what would be let go of
        again, because of those that wait behind it, is not stored at all.
        """
        rules, mask = self._run.claimed.spec.checkpoint, self._run.mask
        named = {name: value for name, value in message["metrics"].items() if mask.text(name) == name}  # by no secret
        message = message | {"metrics": named}
        with self._lock:
            announced = [*self._waiting, message]
            self._waiting = worth_storing(announced, rules.keep_latest, rules.keep_best)
            paths = {one["path"] for one in announced} - {one["path"] for one in self._waiting}
        for path in paths:
            self._remove(path)
        self._pool.submit(carried(self._store_next))

    def finish(self) -> None:
        """Wait until everything is stored; what could not be was reported."""
        self._pool.shutdown(wait=True)

    def images(self, message: dict[str, Any]) -> int:
        """Store the strip of test images, unless the team has it, and return its id.

        Raises FindingsRefused.
        """
        team = self._run.claimed.team_id
        with open_handed_in(self._scratch, message["path"]) as file:
            check_images(message, file.seek(0, 2))
            file.seek(0)
            sha256 = bytes.fromhex(digest_of(file))
            known = self._repeat(lambda session: records.find_sprite(session, team, sha256), "find_sprite")
            if known is not None:
                return known
            stored = self._store(file)
        shape = {name: message[name] for name in ("count", "height", "width", "channels")}
        return self._repeat(
            lambda session: records.add_sprite(session, team, sha256=sha256, blob_id=stored.blob_id, **shape),
            "add_sprite",
        )

    def outputs(self, folder: Path, limit_bytes: int) -> tuple[tuple[OutputRecord, ...], list[str]]:
        """Store the files that a program has left, once it is gone, and what is to be said of those that are not kept.

        Raises AttemptClosed, and what the database raises that will not pass.
        """
        found = outputs.find(folder, limit_bytes)
        kept, notes = [], list(found.notes)
        for path in found.paths:
            if not self._run.may_wait():
                notes.append(f"outputs from {path} on were not kept: the worker stops")
                break
            try:
                with os.fdopen(handover.open_file(folder, path), "rb") as file:
                    stored = self._store(file)
            except OSError as error:
                notes.append(f"the output {path} was not kept: {error.strerror or error}")
            else:
                kept.append(OutputRecord(path, stored.blob_id, stored.size))
        return tuple(kept), notes

    def _store_next(self) -> None:
        with self._lock:
            message = self._waiting.pop(0) if self._waiting else None
        if message is not None:
            self._store_checkpoint(message)

    def _store_checkpoint(self, message: dict[str, Any]) -> None:
        try:
            self._store_verified(message)
        except AttemptClosed:
            self._run.ask(Asked.CLOSED)
        except FindingsRefused as refusal:
            self.refused.append(f"a checkpoint was not kept: {refusal}")
        except Exception as error:  # the training goes on; the one before is still there
            events.error("checkpoint_not_stored", step=message["step"])
            self.refused.append(f"the checkpoint of step {message['step']} was not kept: {type(error).__name__}")

    def _store_verified(self, message: dict[str, Any]) -> None:
        with open_handed_in(self._scratch, message["path"]) as file:
            if file.seek(0, 2) != message["bytes"]:
                raise FindingsRefused(f"step {message['step']}: it has another length than was announced")
            stored = self._store(file)
        if stored.sha256.hex() != message["sha256"]:  # bytes that no row names are collected later
            raise FindingsRefused(f"step {message['step']}: its bytes are not those that were announced")
        self._report.write_all(self._run.may_wait)  # whoever goes on from this row finds every point up to it
        self._repeat(
            lambda session: records.add_checkpoint(
                session,
                self._run.id,
                self._run.incarnation,
                step=message["step"],
                epoch=message["epoch"],
                sha256=stored.sha256,
                size=stored.size,
                blob_id=stored.blob_id,
                metrics=message["metrics"],
            ),
            "add_checkpoint",
        )
        self._remove(message["path"])

    def _remove(self, path: str) -> None:
        with contextlib.suppress(OSError):  # what became of it is the job's affair, and goes with its folder
            handover.remove(self._scratch, path)

    def _store(self, file: io.BufferedReader) -> blobs.Stored:
        def work() -> blobs.Stored:
            file.seek(0)
            return blobs.store(self._sessions, self._run.claimed.team_id, pieces(file))

        return persist(work, go_on=self._run.may_wait, what="store")

    def _repeat(self, work: Callable[[Session], T], what: str) -> T:
        return repeat(self._sessions, work, go_on=self._run.may_wait, what=what)


def worth_storing(announced: Sequence[dict[str, Any]], keep_latest: int, keep_best: int) -> list[dict[str, Any]]:
    """Those of some checkpoints, oldest first, that are among the latest or the best of them."""
    accuracy = [message["metrics"].get("validation_accuracy") for message in announced]
    scored = [index for index, value in enumerate(accuracy) if value is not None]
    best = sorted(scored, key=lambda index: -accuracy[index])[:keep_best]  # of equal ones the older
    latest = range(max(0, len(announced) - keep_latest), len(announced))
    return [message for index, message in enumerate(announced) if index in latest or index in best]
