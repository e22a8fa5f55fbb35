"""The threads that dispatch, sweep and send; one set in each API and worker process."""

import os
import queue
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

import psycopg
from sqlalchemy import Engine, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from stoker.jobs.attempts import Outgoing
from stoker.jobs.collect import collect
from stoker.jobs.database import sessions
from stoker.jobs.dependencies import settle_left
from stoker.jobs.dispatch import Means, dispatch, last_wish
from stoker.jobs.leases import record_send
from stoker.jobs.moves import WAKE
from stoker.jobs.policy import Policy
from stoker.jobs.present import Runs
from stoker.jobs.prospects import Foresight, foresee
from stoker.jobs.sweep import Contact, sweep
from stoker.jobs.window import WINDOW, Demands
from stoker.log import Events, about
from stoker.settings import Settings

log = Events("stoker.dispatcher")
COLLECT_SECONDS = 600.0
FORESEE_SECONDS = 60.0
FIRST_DEPTH = 1  # jobs of one user, priority and shape; a slot that got free needs one, a fleet that did many


@dataclass(frozen=True, slots=True)
class Spent:
    """What the passes of one process have taken so far."""

    passes: int = 0
    seconds: float = 0.0


class Dispatcher:
    """Runs passes when woken, sweeps periodically, and sends messages after the commit.

    ``send`` puts one message on the broker and raises when the broker does not take it; it is only ever called
    from one thread of this object, so a hung broker holds up nothing else.
    """

    def __init__(self, engine: Engine, send: Callable[[Outgoing], None], settings: Settings) -> None:
        self._engine, self._send, self._settings = engine, send, settings
        self._session = sessions(engine)
        self.spent = Spent()
        self._stopping = threading.Event()
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._outbox: queue.SimpleQueue[Outgoing | None] = queue.SimpleQueue()
        self._pending: set[UUID] = set()
        self._foresight, self._demands, self._runs = Foresight(), Demands(), Runs()
        self._policy = Policy(hold_seconds=settings.preempt_grace_seconds + 60.0)
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for name, target in (
                ("dispatch", self._dispatch),
                ("sweep", self._sweep),
                ("send", self._deliver),
                ("collect", self._collect),
                ("foresee", self._foresee),
            )
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def kick(self) -> None:
        """Ask for a pass soon; never waits for anything."""
        os.eventfd_write(self._wakeup, 1)

    def stop(self) -> None:
        """End the threads; a message that is being sent is given up after its own time-out."""
        self._stopping.set()
        self._outbox.put(None)
        self.kick()
        for thread in self._threads:
            thread.join(timeout=10)

    def _dispatch(self) -> None:
        listener: psycopg.Connection | None = None
        while not self._stopping.is_set():
            try:
                listener = listener or self._listen()
                self._wait(listener)
                if not self._stopping.is_set():
                    self._passes()
            except (SQLAlchemyError, psycopg.Error) as error:
                log.warning("dispatch_failed", error=str(error).splitlines()[0])
                if listener is not None:
                    listener.close()
                listener = None
                self._stopping.wait(min(1.0, self._settings.dispatch_seconds))
            except Exception:
                log.error("dispatch_failed")
                self._stopping.wait(1.0)
        if listener is not None:
            listener.close()

    def _listen(self) -> psycopg.Connection:
        url = make_url(self._engine.url).set(drivername="postgresql")
        connection = psycopg.connect(url.render_as_string(hide_password=False), autocommit=True, connect_timeout=3)
        connection.execute(f"LISTEN {WAKE}")
        self.kick()  # what was said before we listened
        return connection

    def _wait(self, listener: psycopg.Connection) -> None:
        """Return when somebody wants a pass, at the latest after ``dispatch_seconds``."""
        poll = select.poll()  # select() cannot watch a descriptor beyond 1023
        poll.register(listener.fileno(), select.POLLIN)
        poll.register(self._wakeup, select.POLLIN)
        readable = [descriptor for descriptor, _ in poll.poll(1000 * self._settings.dispatch_seconds)]
        if self._wakeup in readable:
            os.eventfd_read(self._wakeup)
        if listener.fileno() in readable:
            for _ in listener.notifies(timeout=0):
                pass

    def _passes(self) -> None:
        depth = FIRST_DEPTH
        while not self._stopping.is_set():
            began = time.monotonic()
            with self._session() as session:
                done = dispatch(session, self._means(session), depth)
                session.commit()
            self.spent = Spent(self.spent.passes + 1, self.spent.seconds + time.monotonic() - began)
            for outgoing in done.sent:
                self._post(outgoing)
            if done.again is None:
                return
            if done.more:
                depth = min(4 * depth, WINDOW)
                continue
            with self._session() as session:
                if last_wish(session) == done.again:
                    return

    def _means(self, session: Session) -> Means:
        """What is kept between passes, as of now."""
        rule = self._foresight.mix.rule(session)
        return Means(rule, self._demands, self._foresight.durations.estimates, self._policy, self._runs)

    def _foresee(self) -> None:
        """Write down when jobs that wait are expected to start, also where nobody asks: so errors are known."""
        while not self._stopping.wait(FORESEE_SECONDS):
            try:
                with self._session() as session:
                    if foresee(session, self._foresight):
                        session.commit()
            except SQLAlchemyError as error:
                log.warning("foresee_failed", error=type(error).__name__)
            except Exception:
                log.error("foresee_failed")

    def _sweep(self) -> None:
        contact = Contact(self._settings.lease_seconds)
        pause = min(1.0, self._settings.renew_seconds)
        while not self._stopping.wait(pause):
            try:
                for outgoing in sweep(self._session, contact, self._settings):
                    self._post(outgoing)
            except SQLAlchemyError as error:
                contact.lost()
                log.warning("sweep_failed", error=str(error).splitlines()[0])
            except Exception:
                contact.lost()
                log.error("sweep_failed")

    def _collect(self) -> None:
        while not self._stopping.wait(COLLECT_SECONDS):
            try:
                collect(self._session)
                settle_left(self._session)
            except SQLAlchemyError as error:
                log.warning("collect_failed", error=str(error).splitlines()[0])
            except Exception:
                log.error("collect_failed")

    def _post(self, outgoing: Outgoing) -> None:
        if outgoing.attempt_id not in self._pending:
            self._pending.add(outgoing.attempt_id)
            self._outbox.put(outgoing)

    def _deliver(self) -> None:
        while (outgoing := self._outbox.get()) is not None:
            with about(job=outgoing.job_number, attempt=outgoing.attempt_id):
                self._deliver_one(outgoing)

    def _deliver_one(self, outgoing: Outgoing) -> None:
        error: str | None = None
        try:
            self._send(outgoing)
        except Exception as refused:
            error = f"{type(refused).__name__}: {refused}"[:500]
            log.warning("send_failed", error=error)
        self._pending.discard(outgoing.attempt_id)
        try:
            with self._session() as session:
                self._record(session, outgoing.attempt_id, error)
        except SQLAlchemyError as lost:
            log.warning("send_not_recorded", error=str(lost).splitlines()[0])

    @staticmethod
    def _record(session: Session, attempt: UUID, error: str | None) -> None:
        record_send(session, attempt, error)
        session.commit()
