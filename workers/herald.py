"""Tells whoever watches Celery's events, Flower above all, what becomes of attempts: as the table has it, whoever ended
them, and once more when somebody begins to listen. A monitor that is away, or a broker, never holds up a job."""

import socket
import threading
import time
from typing import Any
from uuid import UUID

from celery import Celery
from sqlalchemy import exc
from sqlalchemy.orm import Session, sessionmaker

from stoker.jobs import reads_tasks
from stoker.jobs.lifecycle import CANCEL, FAIL, REQUEUE, SUCCEED
from stoker.jobs.reads_tasks import DAY_SECONDS, TaskView
from stoker.log import Events
from stoker.messages.app import TASK, shown
from stoker.workers.membership import Membership
from stoker.workers.transactions import once

events = Events(__name__)
OVERLAP_SECONDS = 60.0  # an end is dated by the begin of its transaction, and seen at its commit
STRANGER = "Stoker knows no such attempt"
STOP_SECONDS = 5.0  # for the last words of a worker that stops


class Herald:
    """A thread that looks in the table for ends of attempts, and sends each as an event, once."""

    def __init__(
        self, sessions: sessionmaker[Session], app: Celery, membership: Membership, every_seconds: float
    ) -> None:
        """Nothing is told before ``start``."""
        self._sessions, self._app, self._membership = sessions, app, membership
        self._every_seconds = every_seconds
        self._hostname = f"{membership.offer.name}@{socket.gethostname()}"
        self._consumer: Any = None  # Celery's, with the connection on which it tells of its tasks
        self._lock = threading.Lock()
        self._asked: set[UUID] = set()  # to be told of, even again
        self._anew = True  # to tell everything again
        self._told: set[UUID] = set()  # of those that the next look will find
        self._looked_at = time.monotonic()  # the last look that told everything
        self._stopping = threading.Event()
        self._wakeup = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="herald", daemon=True)

    def start(self) -> None:
        """Start telling: at first of the last day, for this worker may have been away."""
        self._thread.start()

    def stop(self) -> None:
        """Tell what is still to be told, then no more; the consumer, which ends too, may have swallowed the last."""
        with self._lock:
            self._consumer, self._told = None, set()
        self._stopping.set()
        self._wakeup.set()
        self._thread.join(STOP_SECONDS)

    def tell(self, attempt: UUID) -> None:
        """Tell how an attempt has ended, if it has; its message was received here, whatever became of that."""
        with self._lock:
            self._asked.add(attempt)
        self._wakeup.set()

    def look(self) -> None:
        """Look for ends now."""
        self._wakeup.set()

    def repeat(self, consumer: Any) -> None:
        """Tell everything of the last day again: somebody has begun to listen, or this worker's consumer to speak."""
        with self._lock:
            self._consumer, self._anew = consumer, True
        self._wakeup.set()

    def _keep(self) -> None:
        while not self._stopping.is_set():
            self._wakeup.wait(self._every_seconds)
            self._wakeup.clear()
            self._look_or_postpone()
        self._look_or_postpone()

    def _look_or_postpone(self) -> None:
        with self._lock:
            asked, self._asked = self._asked, set()
            anew, self._anew = self._anew, False
        try:
            self._look(asked, anew)
        except Exception as error:  # of the database, or kombu, redis and OSError: whatever a dead broker raises
            if not isinstance(error, exc.SQLAlchemyError):
                events.info("event_lost", error=type(error).__name__)
            with self._lock:
                self._asked |= asked
                self._anew = self._anew or anew

    def _look(self, asked: set[UUID], anew: bool) -> None:
        """Tell what is new, and what was asked for; ``anew``, everything.

        Raises what the database and the broker raise; what was told by then is not told again.
        """
        began = time.monotonic()
        age_seconds = DAY_SECONDS if anew else began - self._looked_at + OVERLAP_SECONDS
        found = once(self._sessions, lambda session: self._found(session, asked, anew, age_seconds))
        for view in found:
            if view.move is None and view.claimed_at is None:
                continue  # its claim failed: its message comes again, or it ends as not claimed
            if anew or (view.move and (view.attempt_id in asked or view.attempt_id not in self._told)):
                self._send(f"{view.worker}@{view.host}", *event_of(view))
                self._told.add(view.attempt_id)
        for stranger in asked - {view.attempt_id for view in found}:
            self._send(self._hostname, "task-failed", {"uuid": str(stranger), "exception": STRANGER})
        self._told = {view.attempt_id for view in found if view.move}
        self._looked_at = began

    def _found(self, session: Session, asked: set[UUID], anew: bool, age_seconds: float) -> list[TaskView]:
        incarnation = self._membership.id
        lately = reads_tasks.ended_lately(session, incarnation, age_seconds)
        known = {view.attempt_id for view in lately}
        current = reads_tasks.running(session, incarnation) if anew else []
        return reads_tasks.those(session, asked - known) + lately + current

    def _send(self, hostname: str, kind: str, fields: dict[str, Any]) -> None:
        """Send for a worker: for this one in order behind what Celery itself has said, for others as they would have.

        Raises what a dead broker raises.
        """
        consumer = self._consumer
        speaker = consumer.event_dispatcher if consumer is not None and hostname == self._hostname else None
        if speaker is not None:
            speaker.send(kind, **fields)
            speaker.flush(errors=False)
        else:
            with self._app.events.default_dispatcher(hostname=hostname) as dispatcher:
                dispatcher.send(kind, **fields)


def event_of(view: TaskView) -> tuple[str, dict[str, Any]]:
    """The event by which Flower learns how an attempt stands, complete: it may know nothing of the task yet."""
    fields: dict[str, Any] = {"uuid": str(view.attempt_id), "name": TASK} | shown(view)
    if view.claimed_at is not None:
        began = view.claimed_at.timestamp()
        fields |= {"received": began, "started": began}
        if view.ended_at is not None:
            fields["runtime"] = (view.ended_at - view.claimed_at).total_seconds()
    if view.move is None or view.ended_at is None:
        return "task-started", fields
    kind, said = _END[view.move]
    fields |= {kind: view.ended_at.timestamp(), said: _words(view)}
    if view.move == CANCEL.name:
        fields |= {"terminated": view.claimed_at is not None, "signum": None, "expired": False}
    return f"task-{kind}", fields


_END = {  # the move of the job -> event of the attempt, and the field in which it says why
    SUCCEED.name: ("succeeded", "result"),
    FAIL.name: ("failed", "exception"),
    CANCEL.name: ("revoked", "exception"),
    REQUEUE.name: ("retried", "exception"),  # as another attempt, which is another task
}


def _words(view: TaskView) -> str:
    failure = f"{view.failure['class']}: {view.failure['evidence']}"[:2000] if view.failure else view.reason or ""
    if view.move == CANCEL.name:
        return f"cancelled by {view.cancelled_by}" if view.cancelled_by else "cancelled"
    return f"queued again: {failure}" if view.move == REQUEUE.name else failure
