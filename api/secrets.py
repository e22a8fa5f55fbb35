"""Routes: a team's secrets. A value goes in and never comes out."""

from fastapi import APIRouter, Response

from stoker.api.dependencies import Caller_, Database, JsonBody
from stoker.api.people import body_of
from stoker.api.services import Shared
from stoker.jobs import keepsakes
from stoker.jobs.documents import Strict, parse_json, validate
from stoker.jobs.keepsakes import SecretView
from stoker.jobs.moves import add_event
from stoker.jobs.pages import Page

router = APIRouter(prefix="/secrets", tags=["secrets"])


class NewSecret(Strict):
    """A value under a name."""

    name: str
    value: str


@router.get("")
def list_secrets(session: Database, caller: Caller_) -> Page[SecretView]:
    """The secrets of one's own team, without their values."""
    return Page(keepsakes.list_secrets(session, caller))


@router.post("", status_code=201, openapi_extra=body_of(NewSecret))
def keep(body: JsonBody, session: Database, caller: Caller_, services: Shared) -> SecretView:
    """Keep a value for the jobs of one's own team that name it; the same name again replaces it."""
    wanted = validate(NewSecret, parse_json(body))
    view = keepsakes.set_secret(session, caller, services.vault, wanted.name, wanted.value)
    add_event(session, "secret_set", actor=caller.user, reason=f"{wanted.name} of team {caller.team}")
    session.commit()
    return view


@router.delete("/{name}", status_code=204)
def remove(name: str, session: Database, caller: Caller_) -> Response:
    """Forget a value; a job that waits for its turn and names it fails when it starts."""
    keepsakes.remove_secret(session, caller, name)
    add_event(session, "secret_removed", actor=caller.user, reason=f"{name} of team {caller.team}")
    session.commit()
    return Response(status_code=204)
