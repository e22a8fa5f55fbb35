"""The administrator's token of a stack."""

from stoker.errors import NotAuthenticated
from stoker.jobs import accounts
from stoker.jobs.database import connect, sessions


def admin_token(database_url: str, known: str | None) -> str:
    """A valid token of the administrator: the known one while it is good, else a new one.

    The first call on a new database makes the first team and the user ``admin``.
    """
    engine = connect(database_url, pool_size=1)
    try:
        with sessions(engine)() as session:
            if known is not None:
                try:
                    accounts.authenticate(session, known)
                    return known
                except NotAuthenticated:
                    session.rollback()  # revoked, or of a database that is gone
            token = accounts.bootstrap(session) or accounts.renew_admin_token(session)
            session.commit()
            return token
    finally:
        engine.dispose()
