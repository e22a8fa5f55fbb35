"""Finds who is calling, and remembers it for at most a second."""

import threading
import time

from sqlalchemy.orm import Session, sessionmaker

from stoker.errors import NotAuthenticated
from stoker.jobs.accounts import Caller, authenticate, digest

REMEMBER_SECONDS = 1.0  # a token that was revoked elsewhere is refused after so long
REMEMBER_CALLERS = 1_000


def bearer(authorization: str | None) -> str:
    """The token of an Authorization header; raises NotAuthenticated."""
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token.isascii():
        raise NotAuthenticated
    return token.strip()


class SignIn:
    """Looks tokens up. Safe to use from several threads."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions
        self._known: dict[bytes, tuple[float, Caller]] = {}
        self._lock = threading.Lock()

    def remembered(self, token: str) -> Caller | None:
        """Who showed this token within the last second; never waits."""
        until, caller = self._known.get(digest(token), (0.0, None))
        return caller if time.monotonic() < until else None

    def check(self, token: str) -> Caller:
        """Who a token belongs to; raises NotAuthenticated."""
        if (caller := self.remembered(token)) is not None:
            return caller
        with self._sessions() as session:
            caller = authenticate(session, token)
        with self._lock:
            if len(self._known) >= REMEMBER_CALLERS:
                self._known.clear()
            self._known[digest(token)] = (time.monotonic() + REMEMBER_SECONDS, caller)
        return caller

    def forget(self) -> None:
        """Look every token up anew, because one was just revoked."""
        with self._lock:
            self._known.clear()
