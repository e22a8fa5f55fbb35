"""Tokens: shown once, stored as a digest, and worth nothing once revoked."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from stoker.errors import NotAuthenticated, NotFound
from stoker.jobs import accounts
from stoker.jobs.database import connect, sessions
from stoker.jobs.models import User


@pytest.fixture
def session(database_url: str) -> Iterator[Session]:
    engine = connect(database_url)
    with sessions(engine)() as session:
        yield session
    engine.dispose()


@pytest.fixture
def token(session: Session) -> str:
    token = accounts.bootstrap(session)
    assert token is not None
    return token


def test_the_first_token_is_an_admins(session: Session, token: str) -> None:
    caller = accounts.authenticate(session, token)
    assert (caller.user, caller.team, caller.role, caller.admin) == ("admin", "default", "admin", True)
    assert accounts.TOKEN.fullmatch(token)


def test_there_is_one_first_token(database_url: str) -> None:
    engine = connect(database_url)

    def start(_: int) -> str | None:
        with sessions(engine)() as session:
            token = accounts.bootstrap(session)
            session.commit()
            return token

    with ThreadPoolExecutor(4) as pool:
        tokens = list(pool.map(start, range(6)))
    engine.dispose()
    assert sum(token is not None for token in tokens) == 1


def test_tokens_differ() -> None:
    assert len({accounts.new_token() for _ in range(100)}) == 100


def test_no_token_is_stored(session: Session, token: str) -> None:
    rows = session.execute(text("SELECT tokens::text FROM tokens")).scalars().all()
    assert len(rows) == 1
    assert token not in rows[0]
    assert token[4:] not in rows[0]


@pytest.mark.parametrize(
    "wrong", ["", "stk_", "Bearer", "stk_" + "a" * 43, "x" * 1_000_000, "stk_ümlaut", "stk_\0", "' OR 1=1 --"]
)
def test_a_wrong_token_is_refused(session: Session, token: str, wrong: str) -> None:
    with pytest.raises(NotAuthenticated):
        accounts.authenticate(session, wrong)


@pytest.mark.parametrize(
    "end",
    [
        "UPDATE tokens SET revoked_at = now()",
        "UPDATE tokens SET expires_at = now() - interval '1 second'",
        "UPDATE users SET disabled_at = now()",
    ],
)
def test_an_ended_token_is_refused(session: Session, token: str, end: str) -> None:
    session.execute(text(end))
    with pytest.raises(NotAuthenticated):
        accounts.authenticate(session, token)


def test_a_revoked_token_is_gone_and_the_others_stay(session: Session, token: str) -> None:
    admin = session.scalars(select(User)).one()
    second = accounts.add_token(session, admin, "laptop")
    assert [one.name for one in accounts.list_tokens(session, admin.id).items] == ["laptop", "first"]
    first = accounts.authenticate(session, token).token_id
    for _ in range(2):
        accounts.revoke_token(session, admin.id, first)
    assert [one.name for one in accounts.list_tokens(session, admin.id).items] == ["laptop"]
    assert accounts.authenticate(session, second).user == "admin"
    with pytest.raises(NotFound, match="no token 99"):
        accounts.revoke_token(session, admin.id, 99)


def test_nobody_revokes_the_token_of_another(session: Session, token: str) -> None:
    caller = accounts.authenticate(session, token)
    other = User(name="eve", team_id=caller.team_id)
    session.add(other)
    session.flush()
    with pytest.raises(NotFound):
        accounts.revoke_token(session, other.id, caller.token_id)
    assert accounts.authenticate(session, token) == caller
