"""The lease of this process and its attempts: renewed in a thread of its own, on a connection of its own."""

import os
import select
import threading
import time
from functools import partial
from pathlib import Path
from uuid import UUID

import psycopg
from sqlalchemy import exc, make_url
from sqlalchemy.orm import Session, sessionmaker

from stoker.errors import AttemptClosed, StokerError
from stoker.jobs.attempts import Ending, finish
from stoker.jobs.database import connect, sessions
from stoker.jobs.failures import Failure
from stoker.jobs.fleet import NameTaken
from stoker.jobs.leases import Renewed, numbers_of, renew
from stoker.jobs.lifecycle import Outcome
from stoker.jobs.moves import REQUEST
from stoker.log import Events, about
from stoker.settings import Settings
from stoker.workers import processes
from stoker.workers.membership import Membership
from stoker.workers.runner import LEASE_SHARE
from stoker.workers.runs import Asked, Runs
from stoker.workers.trainers import ForkServer
from stoker.workers.transactions import once

events = Events(__name__)
RECONNECT_SECONDS = 2.0
EMPTY_SECONDS = 60.0  # for all trainers of a closed incarnation to end
UNHELD = "its worker lost track of it: its claim was not answered, or its end could not be written"
ASKED = {"cancel": Asked.CANCEL, "preempt": Asked.PREEMPT}


class Listener:
    """Waits for the moment at which somebody asks something of an attempt; without a connection, only waits."""

    def __init__(self, url: str) -> None:
        """``url`` as SQLAlchemy writes it."""
        self._conninfo = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        self._connection: psycopg.Connection[tuple[object, ...]] | None = None
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def wait(self, seconds: float) -> None:
        """Return after a request, after ``wake``, or after so many seconds."""
        try:
            connection = self._connected()
            self._poll(seconds, connection.fileno())
            for _ in connection.notifies(timeout=0):
                pass
        except psycopg.Error:
            self._disconnect()
            self._poll(min(seconds, RECONNECT_SECONDS))

    def _poll(self, seconds: float, *descriptors: int) -> None:
        poll = select.poll()  # select() cannot watch a descriptor beyond 1023
        for descriptor in (self._wakeup, *descriptors):
            poll.register(descriptor, select.POLLIN)
        poll.poll(1000 * seconds)

    def wake(self) -> None:
        """Let ``wait`` return, now and from now on."""
        os.eventfd_write(self._wakeup, 1)

    def close(self) -> None:
        """Give back the descriptors."""
        self._disconnect()
        os.close(self._wakeup)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            connection.close()

    def _connected(self) -> psycopg.Connection[tuple[object, ...]]:
        if self._connection is None:
            self._connection = psycopg.connect(
                self._conninfo, autocommit=True, connect_timeout=3, tcp_user_timeout=5000, keepalives_idle=5
            )
            self._connection.execute(f"LISTEN {REQUEST}")
        return self._connection


class LeaseKeeper:
    """Renews, lets trainers go on, and passes on what is asked of each attempt.

    When the incarnation was closed by somebody else, because it was not heard of for too long, its trainers are
    killed, and the worker registers anew.
    """

    def __init__(
        self,
        settings: Settings,
        url: str,
        membership: Membership,
        runs: Runs,
        fork_server: ForkServer,
        health: Path,
    ) -> None:
        """Nothing happens before ``start``."""
        self._settings, self._membership, self._runs = settings, membership, runs
        self._fork_server, self._health = fork_server, health
        self._engine = connect(url, pool_size=1, application="stoker lease")
        self._sessions: sessionmaker[Session] = sessions(self._engine)
        self._listener = Listener(url)
        self._unheld: set[UUID] = set()  # what nobody looked after at the last renewal
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep_or_die, name="lease", daemon=True)

    def start(self) -> None:
        """Start renewing."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, if it was started, and give back the connections."""
        self._stopping.set()
        self._listener.wake()
        if self._thread.ident is not None:
            self._thread.join()
        self._listener.close()
        self._engine.dispose()

    def _keep_or_die(self) -> None:
        """A worker that renews no more must not look alive: trainers end with it, and whoever starts it does so again.

        What ends it here is a defect; what a database, a disk or a lack of descriptors does passes.
        """
        try:
            self._keep()
        except BaseException:
            events.error("lease_thread_died")
            os._exit(1)

    def _keep(self) -> None:
        due = time.monotonic()
        while not self._stopping.is_set():
            try:
                if not self.renew():
                    self._begin_anew()
                due = time.monotonic() + self._settings.renew_seconds
            except (exc.DBAPIError, exc.TimeoutError, OSError) as error:
                events.warning("lease_not_renewed", error=(str(error).splitlines() or [""])[0][:300])
                due = time.monotonic() + min(RECONNECT_SECONDS, self._settings.renew_seconds)
            self._wait(max(0.01, due - time.monotonic()))

    def _wait(self, seconds: float) -> None:
        try:
            self._listener.wait(seconds)
        except OSError as error:
            events.warning("requests_not_heard", error=str(error))
            self._stopping.wait(min(seconds, RECONNECT_SECONDS))

    def renew(self) -> bool:
        """Renew once; False: the incarnation was closed.

        Raises what the database raises; the deadlines then stay where they were.
        """
        known = self._runs.all()  # a run that is claimed from here on is not missing if the answer lacks it
        before = processes.boottime()
        answer = once(self._sessions, lambda session: renew(session, self._membership.id, self._settings.lease_seconds))
        if not answer.alive:
            return False
        deadline = before + LEASE_SHARE * self._settings.lease_seconds
        self._pass_on(answer, deadline, {run.id for run in known})
        self._end_unheld(answer)
        self._touch_health()
        return True

    def _touch_health(self) -> None:
        try:
            self._health.touch()
        except OSError as error:  # a full disk is no reason to lose the lease
            events.warning("health_not_noted", error=str(error))

    def _pass_on(self, answer: Renewed, deadline: float, known: set[UUID]) -> None:
        for run in self._runs.all():
            if run.id in answer.requests:
                run.deadline = max(run.deadline, deadline)
                if request := answer.requests[run.id]:
                    run.ask(ASKED[request])
            elif run.id in known:
                run.ask(Asked.CLOSED)
        self._fork_server.renew({str(attempt): deadline for attempt in answer.requests})

    def _end_unheld(self, answer: Renewed) -> None:
        """End attempts that are ours in the database and that no thread of this process looks after.

        Whose claim was committed but not answered, or whose end could not be written: their leases would be renewed
        for as long as this worker lives. Seen at two renewals running, so that one that ends just now is let alone.
        """
        unheld = answer.requests.keys() - self._runs.looked_after()
        sure, self._unheld = unheld & self._unheld, unheld
        numbers = once(self._sessions, lambda session: numbers_of(session, sure)) if sure else {}
        for attempt in sure:
            with about(job=numbers.get(attempt), attempt=attempt):
                events.error("attempt_unheld")
                try:
                    once(self._sessions, partial(self._lose, attempt=attempt))
                except AttemptClosed:
                    continue  # it has ended meanwhile
                except StokerError:  # nothing that others' code or data says ends this process with all its trainers
                    events.error("attempt_not_ended")

    def _lose(self, session: Session, attempt: UUID) -> None:
        ending = Ending(Outcome.LOST, "worker_lost", failure=Failure("worker_lost", UNHELD))
        finish(session, attempt, self._membership.id, ending)

    def _begin_anew(self) -> None:
        """Kill what still runs for an incarnation that was closed; once nothing does, register another."""
        events.error("incarnation_closed", incarnation=self._membership.id)
        self._runs.close()
        until = time.monotonic() + EMPTY_SECONDS
        while self._runs.all() and time.monotonic() < until:
            time.sleep(0.05)
        try:
            self._membership.join()
        except NameTaken as taken:
            events.error("name_taken", error=str(taken))
