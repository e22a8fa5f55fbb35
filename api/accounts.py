"""Routes: who I am, and tokens: one's own, and for administrators everybody's."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field
from sqlalchemy.orm import Session

from stoker.api.dependencies import Caller_, Database, JsonBody
from stoker.api.parameters import Cursor, Limit, Whole
from stoker.api.services import Shared
from stoker.jobs import accounts, people
from stoker.jobs.accounts import Caller
from stoker.jobs.documents import Strict, parse_json, validate
from stoker.jobs.models import Token, User
from stoker.jobs.moves import add_event
from stoker.jobs.pages import Page
from stoker.jobs.spec_fields import Name, Seconds
from stoker.jobs.visibility import must_be_admin

router = APIRouter(tags=["accounts"])

TokenId = Annotated[int, Whole, Path(ge=1, description="From the list of tokens")]
Whose = Annotated[str | None, Query(description="A user's name; another's takes an administrator")]


class NewToken(Strict):
    """What is said about a token that is asked for."""

    name: Name
    user: str | None = Field(default=None, description="Whose it shall be; another's takes an administrator")
    expires: Seconds | None = Field(default=None, description='Such as "30d"; without it until it is revoked')


@dataclass(frozen=True, slots=True)
class Me:
    """Who is calling."""

    user: str
    team: str
    role: str


@dataclass(frozen=True, slots=True)
class TokenView:
    """A token, without the token itself."""

    id: int
    name: str
    created_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class MadeToken:
    """A new token. It is shown this once."""

    name: str
    user: str
    token: str


_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/NewToken"}}},
    }
}


@router.get("/whoami")
async def whoami(caller: Caller_) -> Me:
    """Whose token this is."""
    return Me(caller.user, caller.team, caller.role)


def whose(session: Session, caller: Caller, name: str | None) -> User:
    """The user whose tokens are meant: oneself, or for administrators anybody; raises Forbidden, NotFound."""
    if name is None or name == caller.user:
        return session.get_one(User, caller.user_id)
    must_be_admin(caller, "see or change tokens of others")
    return people.find_user(session, name)


@router.get("/tokens")
def list_tokens(
    session: Database, caller: Caller_, user: Whose = None, limit: Limit = 50, cursor: Cursor = None
) -> Page[TokenView]:
    """Tokens that were not revoked, the latest first."""
    found = accounts.list_tokens(session, whose(session, caller, user).id, limit, cursor)
    return Page([_view(token) for token in found.items], found.next)


@router.post("/tokens", status_code=201, openapi_extra=_BODY)
def add_token(body: JsonBody, session: Database, caller: Caller_) -> MadeToken:
    """Make one more token."""
    asked = validate(NewToken, parse_json(body))
    user = whose(session, caller, asked.user)
    made = accounts.add_token(session, user, asked.name, good_seconds=asked.expires)
    add_event(session, "token_added", actor=caller.user, reason=f"{asked.name}, of {user.name}")
    session.commit()
    return MadeToken(asked.name, user.name, made)


@router.delete("/tokens/{token_id}", status_code=204)
def revoke_token(
    token_id: TokenId, session: Database, caller: Caller_, services: Shared, user: Whose = None
) -> Response:
    """Take a token out of use, here at once and in other processes within a second."""
    owner = whose(session, caller, user)
    accounts.revoke_token(session, owner.id, token_id)
    add_event(session, "token_revoked", actor=caller.user, reason=f"token {token_id}, of {owner.name}")
    session.commit()
    services.sign_in.forget()
    return Response(status_code=204)


def _view(token: Token) -> TokenView:
    return TokenView(token.id, token.name, token.created_at, token.expires_at)
