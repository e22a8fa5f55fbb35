"""The search for what nobody looks after any more; every process that dispatches runs it, all do no harm."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from stoker.jobs import leases
from stoker.jobs.attempts import Outgoing
from stoker.jobs.fleet import database_clock
from stoker.log import Events, about
from stoker.settings import Settings

log = Events("stoker.sweep")


def boottime() -> float:
    """Seconds since boot, those of suspend included: no change of the wall clock moves it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(slots=True)
class Contact:
    """Whether this process has seen the database for a whole lease without a gap or a jump of its clock.

    Only then may it take a silent worker's lease away: after an outage every worker needs one lease to be heard.
    """

    lease_seconds: float
    _since: float | None = field(default=None, init=False)
    _last: tuple[float, float] | None = field(default=None, init=False)

    def seen(self, database_seconds: float, own_seconds: float) -> bool:
        """Note a successful look at the database; returns whether sweeping is allowed now."""
        if self._last is not None:
            passed = own_seconds - self._last[1]
            jumped = abs(database_seconds - self._last[0] - passed) > self.lease_seconds / 5
            if jumped or passed > self.lease_seconds:
                self._since = None
        self._last = (database_seconds, own_seconds)
        if self._since is None:
            self._since = own_seconds
        return own_seconds - self._since >= self.lease_seconds

    def lost(self) -> None:
        """Note that the database did not answer."""
        self._since = None


def sweep(factory: sessionmaker[Session], contact: Contact, settings: Settings) -> list[Outgoing]:
    """Take back what ran out, one transaction each, and name the messages that are to be sent again."""
    with factory() as session:
        allowed = contact.seen(database_clock(session), boottime())
        attempts = leases.expired_attempts(session) if allowed else []
        incarnations = leases.expired_incarnations(session) if allowed else []
        unclaimed = leases.unclaimed_attempts(session, settings.claim_seconds)
        numbers = leases.numbers_of(session, [*attempts, *unclaimed])
    for found in attempts:
        with about(job=numbers.get(found), attempt=found):
            _try(factory, partial(leases.take_back, attempt_id=found))
    for found in incarnations:
        with about(incarnation=found):
            _try(factory, partial(leases.close_expired, incarnation=found))
    for found in unclaimed:
        with about(job=numbers.get(found), attempt=found):
            _try(factory, partial(leases.return_unclaimed, attempt_id=found, claim_seconds=settings.claim_seconds))
    with factory() as session:
        due = leases.due_messages(session, settings.resend_seconds)
        session.commit()
    return due


def _try(factory: sessionmaker[Session], step: Callable[[Session], None]) -> None:
    """Make one step; what keeps it from ending one attempt must not keep the others from being ended."""
    try:
        with factory() as session:
            step(session)
            session.commit()
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        log.warning("sweep_step_failed", error=str(error).splitlines()[0])
    except Exception:
        log.error("sweep_step_failed")
