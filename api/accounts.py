"""Routes: who I am, and my tokens."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Response

from stoker.api.dependencies import Caller_, Database, JsonBody
from stoker.api.parameters import Cursor, Limit, Whole
from stoker.api.services import Shared
from stoker.jobs import accounts
from stoker.jobs.documents import Strict, parse_json, validate
from stoker.jobs.models import Token, User
from stoker.jobs.moves import add_event
from stoker.jobs.pages import Page
from stoker.jobs.spec import Name

router = APIRouter(tags=["accounts"])

TokenId = Annotated[int, Whole, Path(ge=1, description="From the list of tokens")]


class NewToken(Strict):
    """What is said about a token that is asked for."""

    name: Name


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


@router.get("/tokens")
def list_tokens(session: Database, caller: Caller_, limit: Limit = 50, cursor: Cursor = None) -> Page[TokenView]:
    """One's own tokens that were not revoked, the latest first."""
    found = accounts.list_tokens(session, caller.user_id, limit, cursor)
    return Page([_view(token) for token in found.items], found.next)


@router.post("/tokens", status_code=201, openapi_extra=_BODY)
def add_token(body: JsonBody, session: Database, caller: Caller_) -> MadeToken:
    """Make one more token for oneself."""
    asked = validate(NewToken, parse_json(body))
    made = accounts.add_token(session, session.get_one(User, caller.user_id), asked.name)
    add_event(session, "token_added", actor=caller.user, reason=asked.name)
    session.commit()
    return MadeToken(asked.name, made)


@router.delete("/tokens/{token_id}", status_code=204)
def revoke_token(token_id: TokenId, session: Database, caller: Caller_, services: Shared) -> Response:
    """Take one of one's own tokens out of use, here at once and in other processes within a second."""
    accounts.revoke_token(session, caller.user_id, token_id)
    add_event(session, "token_revoked", actor=caller.user, reason=f"token {token_id}")
    session.commit()
    services.sign_in.forget()
    return Response(status_code=204)


def _view(token: Token) -> TokenView:
    return TokenView(token.id, token.name, token.created_at, token.expires_at)
