"""Routes: teams and users. Members see their own team; changes are for administrators."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from pydantic import Field

from stoker.api.dependencies import Caller_, Database, JsonBody
from stoker.api.parameters import Cursor, Limit
from stoker.api.services import Shared
from stoker.jobs import people
from stoker.jobs.documents import Strict, parse_json, validate
from stoker.jobs.models import Team
from stoker.jobs.pages import Page
from stoker.jobs.people import Role, TeamView, UserView, view_user
from stoker.jobs.visibility import must_be_admin

router = APIRouter(tags=["administration"])

TeamName = Annotated[str, Path(description="A team's name")]
UserName = Annotated[str, Path(description="A user's name")]


class NewTeam(Strict):
    """What is said about a team that is to be made."""

    name: str
    weight: float = Field(default=1.0, description="Its part of what is idle, against the other teams' weights")


class TeamChange(Strict):
    """What is to change about a team."""

    weight: float


class NewUser(Strict):
    """What is said about a user who is to be added."""

    name: str
    team: str
    role: Role = "member"
    email: str | None = Field(default=None, description="Where notifications of their jobs may go")


class UserChange(Strict):
    """What is to change about a user; what is left out stays."""

    team: str | None = None
    role: Role | None = None
    disabled: bool | None = Field(default=None, description="true: may sign in no more; their jobs go on")
    email: str | None = Field(default=None, description="Where notifications of their jobs may go; empty: nowhere")


def body_of(model: type[Strict]) -> dict[str, Any]:
    """What OpenAPI is told about a body that the route parses itself."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


@router.get("/teams")
def list_teams(session: Database, caller: Caller_, limit: Limit = 50, cursor: Cursor = None) -> Page[TeamView]:
    """One's own team; for administrators all."""
    return people.list_teams(session, caller, limit, cursor)


@router.post("/teams", status_code=201, openapi_extra=body_of(NewTeam))
def add_team(body: JsonBody, session: Database, caller: Caller_) -> TeamView:
    """Add a team. For administrators."""
    must_be_admin(caller, "add a team")
    asked = validate(NewTeam, parse_json(body))
    team = people.add_team(session, asked.name, asked.weight, actor=caller.user)
    session.commit()
    return TeamView(team.name, team.weight, 0, team.created_at)


@router.patch("/teams/{name}", openapi_extra=body_of(TeamChange))
def change_team(name: TeamName, body: JsonBody, session: Database, caller: Caller_, services: Shared) -> TeamView:
    """Give a team another weight. For administrators."""
    must_be_admin(caller, "change a team")
    team = people.change_team(session, name, validate(TeamChange, parse_json(body)).weight, actor=caller.user)
    session.commit()
    services.kick()
    return people.view_team(session, team)


@router.delete("/teams/{name}", status_code=204)
def remove_team(name: TeamName, session: Database, caller: Caller_) -> Response:
    """Remove a team that has no user, job or data. For administrators."""
    must_be_admin(caller, "remove a team")
    people.remove_team(session, name, actor=caller.user)
    session.commit()
    return Response(status_code=204)


@router.get("/users")
def list_users(session: Database, caller: Caller_, limit: Limit = 50, cursor: Cursor = None) -> Page[UserView]:
    """The users of one's own team; for administrators all."""
    return people.list_users(session, caller, limit, cursor)


@router.post("/users", status_code=201, openapi_extra=body_of(NewUser))
def add_user(body: JsonBody, session: Database, caller: Caller_) -> UserView:
    """Add a user; a token is made by `POST /tokens`. For administrators."""
    must_be_admin(caller, "add a user")
    asked = validate(NewUser, parse_json(body))
    user = people.add_user(session, asked.name, asked.team, asked.role, actor=caller.user, email=asked.email)
    session.commit()
    return view_user(user, asked.team)


@router.patch("/users/{name}", openapi_extra=body_of(UserChange))
def change_user(name: UserName, body: JsonBody, session: Database, caller: Caller_, services: Shared) -> UserView:
    """Move a user, give another role, let them sign in no more or again. For administrators."""
    must_be_admin(caller, "change a user")
    asked = validate(UserChange, parse_json(body))
    user = people.change_user(session, name, actor=caller.user, **asked.model_dump())
    team = session.get_one(Team, user.team_id).name
    session.commit()
    services.sign_in.forget()
    return view_user(user, team)
