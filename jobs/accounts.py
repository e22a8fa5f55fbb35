"""Who is calling: users, and the tokens they show. Of a token only its SHA-256 is ever stored."""

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from stoker.errors import NotAuthenticated, NotFound
from stoker.jobs.models import Team, Token, User
from stoker.jobs.pages import Page, cursor, position

ADMIN = "admin"
DEFAULT_TEAM = "default"
TOKEN = re.compile(r"stk_[A-Za-z0-9_-]{43}")
BOOTSTRAP_LOCK = 0x73746B01  # of pg_advisory_xact_lock


@dataclass(frozen=True, slots=True)
class Caller:
    """A user who has shown a valid token."""

    user_id: int
    user: str
    team_id: int
    team: str
    role: str  # member | admin
    token_id: int
    email: str | None = None

    @property
    def admin(self) -> bool:
        """Whether the caller sees every team and may steer workers."""
        return self.role == "admin"


def bootstrap(session: Session) -> str | None:
    """Make the first team, the user ``admin`` and a token of theirs, which is returned this once.

    Returns None, and changes nothing, when there is any user.
    """
    session.execute(select(func.pg_advisory_xact_lock(BOOTSTRAP_LOCK)))
    if session.scalars(select(User.id).limit(1)).first() is not None:
        return None
    team = Team(name=DEFAULT_TEAM)
    session.add(team)
    session.flush()
    user = User(name=ADMIN, team_id=team.id, role="admin")
    session.add(user)
    session.flush()
    return add_token(session, user, "first")


def renew_admin_token(session: Session) -> str:
    """Give the first administrator who may sign in one more token, for a stack that has lost its own.

    Raises NotFound: there is none.
    """
    admins = select(User).where(User.role == "admin", User.disabled_at.is_(None)).order_by(User.id).limit(1)
    if (user := session.scalars(admins).first()) is None:
        raise NotFound("administrator", "that may sign in")
    return add_token(session, user, "renewed")


def new_token() -> str:
    """Make a token: ``stk_`` and 256 random bits."""
    return "stk_" + secrets.token_urlsafe(32)


def digest(token: str) -> bytes:
    """The SHA-256 under which a token is looked up. 256 random bits need no salt and no slow hash."""
    return hashlib.sha256(token.encode()).digest()


def add_token(session: Session, user: User, name: str, *, good_seconds: float | None = None) -> str:
    """Give a user a new token, good for so long or until it is revoked, and return it: it is shown this once."""
    token = new_token()
    expires = None if good_seconds is None else func.now() + timedelta(seconds=good_seconds)
    session.add(Token(user_id=user.id, name=name, sha256=digest(token), expires_at=expires))
    session.flush()
    return token


def authenticate(session: Session, token: str) -> Caller:
    """Find who a token belongs to.

    Raises NotAuthenticated: it is unknown, expired or revoked, or its user is disabled.
    """
    if not TOKEN.fullmatch(token):
        raise NotAuthenticated
    row = session.execute(
        select(User.id, User.name, Team.id, Team.name, User.role, Token.id, User.email)
        .join_from(Token, User, Token.user_id == User.id)
        .join(Team, User.team_id == Team.id)
        .where(
            Token.sha256 == digest(token),
            Token.revoked_at.is_(None),
            or_(Token.expires_at.is_(None), Token.expires_at > func.now()),
            User.disabled_at.is_(None),
        )
    ).one_or_none()
    if row is None:
        raise NotAuthenticated
    return Caller(*row)


def list_tokens(session: Session, user_id: int, limit: int = 500, after: str | None = None) -> Page[Token]:
    """A user's tokens that are not revoked, the latest first."""
    mine = select(Token).where(Token.user_id == user_id, Token.revoked_at.is_(None))
    if (last := position("token", after)) is not None:
        mine = mine.where(Token.id < last)
    found = list(session.scalars(mine.order_by(Token.id.desc()).limit(limit + 1)))
    return Page(found[:limit], cursor("token", found[limit - 1].id) if len(found) > limit else None)


def revoke_token(session: Session, user_id: int, token_id: int) -> None:
    """Take a user's token out of use; once more changes nothing.

    Raises NotFound: the user has no such token.
    """
    mine = update(Token).where(Token.id == token_id, Token.user_id == user_id)
    revoked = mine.values(revoked_at=func.coalesce(Token.revoked_at, func.now())).returning(Token.id)
    if session.execute(revoked).first() is None:
        raise NotFound("token", token_id)
