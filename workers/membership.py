"""This process among the workers: its name, what it offers, and which incarnation it is."""

import threading
import time
from uuid import UUID

from sqlalchemy import exc
from sqlalchemy.orm import Session, sessionmaker

from stoker.jobs import fleet
from stoker.jobs.fleet import STOPPED, NameTaken, Offer
from stoker.log import Events
from stoker.workers import host
from stoker.workers.transactions import once

events = Events(__name__)
PAUSE_SECONDS = 0.25
BEYOND_LEASE_SECONDS = 5.0
STEP_BACK_SECONDS = 1.0
STOPPING_SECONDS = 600.0  # longer than any stop takes


class Membership:
    """One name; each ``join`` is another incarnation of it."""

    def __init__(self, sessions: sessionmaker[Session], offer: Offer, lease_seconds: float) -> None:
        """Nothing is written before ``join``."""
        self._sessions, self.offer, self._lease_seconds = sessions, offer, lease_seconds
        self._identity = host.identity()
        self.stopped_by: str | None = None  # who asked this worker to stop, if somebody did by name

    @property
    def id(self) -> UUID:
        """Of the present incarnation."""
        return self._identity.id

    def join(self) -> None:
        """Register a new incarnation; waits for a live holder of the name up to a lease and five seconds.

        A holder of this host whose process has ended is not waited for. Raises NameTaken.
        """
        until = time.monotonic() + self._lease_seconds + BEYOND_LEASE_SECONDS
        said = False
        while True:
            self._identity = host.identity()
            try:
                once(self._sessions, self._register)
            except NameTaken as taken:
                if time.monotonic() > until:
                    raise
                if not said:
                    events.warning("name_taken", name=self.offer.name, holder=str(taken))
                    said = True
                time.sleep(PAUSE_SECONDS)
            else:
                events.info("worker_registered", name=self.offer.name, incarnation=self.id)
                return

    def step_back(self) -> None:
        """Let nothing more be placed here, before the runs are asked to stop; waits for the database only briefly."""
        asking = threading.Thread(target=self._step_back, name="step-back", daemon=True)
        asking.start()
        asking.join(STEP_BACK_SECONDS)

    def _step_back(self) -> None:
        try:
            once(self._sessions, lambda session: fleet.stop_placing(session, self.id, STOPPING_SECONDS))
            if (actor := self.stopped_by) is not None:  # apart: it locks jobs, and those come before workers
                once(self._sessions, lambda session: fleet.record_shutdown(session, self.id, actor=actor))
        except (exc.DBAPIError, exc.TimeoutError) as error:
            events.warning("placing_not_stopped", error=str(error.args[0]).splitlines()[0][:300])

    def leave(self) -> None:
        """Close the incarnation, as the worker stops; if the database is away, its lease runs out instead."""
        reason = STOPPED if self.stopped_by is None else f"{STOPPED} by {self.stopped_by}"
        try:
            once(self._sessions, lambda session: fleet.close_incarnation(session, self.id, reason))
        except (exc.DBAPIError, exc.TimeoutError) as error:
            events.warning("incarnation_not_closed", error=str(error.args[0]).splitlines()[0][:300])

    def _register(self, session: Session) -> None:
        held = fleet.holder(session, self.offer.name)
        dead = held[0].id if held and host.is_dead(held[0]) else None
        fleet.register(session, self.offer, self._identity, self._lease_seconds, dead=dead)
