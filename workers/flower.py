"""What Flower shows and asks: events about attempts, and its Terminate and Revoke, which become a cancel."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

from celery import bootsteps
from celery.worker import control
from celery.worker.request import Request
from sqlalchemy import exc
from sqlalchemy.orm import Session, sessionmaker

from stoker.errors import AlreadyFinal, NotFound
from stoker.jobs.lifecycle import State
from stoker.jobs.models import Attempt
from stoker.jobs.submissions import cancel
from stoker.log import Events
from stoker.workers.transactions import once

events = Events(__name__)
ACTOR = "Flower (shared login)"
REPLAY_DELAY_SECONDS = 8.0  # Flower reconnects later than we do
REMEMBERED_SECONDS = 120.0
Send = Callable[..., None]


class Announcements:
    """Last words about tasks. Redis may be away when they are spoken: they are said again after a reconnect."""

    def __init__(self) -> None:
        """Begin with nothing said."""
        self._lock = threading.Lock()
        self._said: deque[tuple[float, str, dict[str, Any]]] = deque(maxlen=1000)

    def remember(self, kind: str, task: str, **fields: Any) -> None:
        """Keep an event that somebody else sends."""
        with self._lock:
            self._said.append((time.monotonic(), kind, {"uuid": task} | fields))

    def say(self, send: Send, kind: str, task: str, **fields: Any) -> None:
        """Send an event now, and remember it."""
        self.remember(kind, task, **fields)
        whisper(send, kind, uuid=task, **fields)

    def repeat(self, send: Send) -> None:
        """Send again what was said lately."""
        with self._lock:
            recent = [said for said in self._said if time.monotonic() - said[0] < REMEMBERED_SECONDS]
        for _, kind, fields in recent:
            whisper(send, kind, **fields)


def whisper(send: Send, kind: str, **fields: Any) -> None:
    """Send an event if the broker is there; a monitor must never hurt a job."""
    try:
        send(kind, **fields)
    except Exception as error:  # kombu, redis and OSError: whatever a dead broker raises
        events.info("event_lost", kind=kind, error=type(error).__name__)


class RunRequest(Request):
    """A task that is stopped through the database, never through the pool: threads cannot be ended."""

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """Nothing: the control command has asked for the cancel already."""

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """Nothing: a stop of the worker reaches runs through its bootstep."""


def replay_step(announcements: Announcements) -> type:
    """A bootstep that says last words again after each reconnect."""

    class Replay(bootsteps.StartStopStep):
        """Runs when the consumer has connected."""

        requires = ("celery.worker.consumer.events:Events",)

        def start(self, consumer: Any) -> None:
            """Wait until Flower is back, too."""
            if consumer.restart_count > 0:
                consumer.timer.call_after(REPLAY_DELAY_SECONDS, self._replay, (consumer,))

        @staticmethod
        def _replay(consumer: Any) -> None:
            if consumer.event_dispatcher:
                announcements.repeat(consumer.event_dispatcher.send)

    return Replay


def install_revoke(sessions: sessionmaker[Session]) -> None:
    """Let Celery's ``revoke`` cancel in the database. Every worker gets it; the cancel is idempotent."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="revoke")  # the consumer must not wait for the database

    def revoke(state: Any, task_id: Any, terminate: bool = False, signal: Any = None, **_: Any) -> dict[str, str]:
        del terminate, signal  # both buttons mean the same
        ids = task_id if isinstance(task_id, list | tuple | set) else [task_id]
        for one in ids:
            pool.submit(_revoke, sessions, str(one), state.consumer.event_dispatcher.send)
        return {"ok": f"cancelling {len(ids)}"}

    control.control_command(name="revoke", variadic="task_id", signature="[id1 [id2 [... [idN]]]]")(revoke)


def _revoke(sessions: sessionmaker[Session], task: str, send: Send) -> None:
    try:
        state = once(sessions, lambda session: cancel_attempt(session, UUID(task)))
    except (ValueError, NotFound, AlreadyFinal) as refusal:
        events.info("revoke_refused", task=task[:100], reason=str(refusal))
    except (exc.DBAPIError, exc.TimeoutError) as error:
        events.warning("revoke_failed", task=task, error=str(error.args[0]).splitlines()[0][:300])
    else:
        if state == State.CANCELLED:  # nothing ran that could say so itself
            whisper(send, "task-revoked", uuid=task, terminated=False, signum=None, expired=False)


def cancel_attempt(session: Session, attempt: UUID) -> str:
    """Cancel the job of an attempt that has not ended; returns the job's state.

    Raises NotFound, AlreadyFinal.
    """
    found = session.get(Attempt, attempt)
    if found is None:
        raise NotFound("attempt", attempt)
    if found.ended_at is not None:
        raise AlreadyFinal(found.job_number, "cancel", f"not on attempt {found.ordinal} any more")
    return cancel(session, found.job_number, actor=ACTOR).state
