"""A transaction that is repeated when the database, and not the work, was at fault."""

import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import exc
from sqlalchemy.orm import Session, sessionmaker

from stoker.log import Events

T = TypeVar("T")
events = Events(__name__)
LONGEST_PAUSE_SECONDS = 2.0
_PASSING = ("40001", "40P01", "55P03", "57014", "53")  # serialisation, deadlock, lock or statement time-out, no room


def is_passing(error: exc.DBAPIError | exc.TimeoutError) -> bool:
    """Whether the same transaction may succeed later: a lost connection, a deadlock, a server that restarts."""
    if isinstance(error, exc.TimeoutError) or error.connection_invalidated:
        return True
    state: str | None = getattr(error.orig, "sqlstate", None)
    return state is None or state.startswith((*_PASSING, "08", "57P", "25P03"))


def once(factory: sessionmaker[Session], work: Callable[[Session], T]) -> T:
    """Do the work in one transaction and commit it."""
    with factory() as session:
        result = work(session)
        session.commit()
        return result


def repeat(factory: sessionmaker[Session], work: Callable[[Session], T], *, go_on: Callable[[], bool], what: str) -> T:
    """Do the work in one transaction; after a passing error, once more, while ``go_on()``."""
    return persist(lambda: once(factory, work), go_on=go_on, what=what)


def persist(work: Callable[[], T], *, go_on: Callable[[], bool], what: str) -> T:
    """Do work that commits on its own and may be done twice; after a passing error, once more, while ``go_on()``."""
    pause = 0.05
    while True:
        try:
            return work()
        except (exc.DBAPIError, exc.TimeoutError) as error:
            if not is_passing(error) or not go_on():
                raise
            events.warning("transaction_repeated", what=what, error=str(error.args[0]).splitlines()[0][:300])
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
