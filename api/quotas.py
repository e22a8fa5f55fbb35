"""Routes: what teams are guaranteed, and what was used."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field

from stoker.api.dependencies import Caller_, Database, JsonBody
from stoker.api.parameters import Cursor, Limit
from stoker.api.people import body_of
from stoker.api.services import Shared
from stoker.jobs import quotas, usage
from stoker.jobs.documents import Strict, parse_json, validate
from stoker.jobs.pages import Page
from stoker.jobs.quantities import parse_seconds
from stoker.jobs.quotas import QuotaView
from stoker.jobs.usage import By, UsageReport
from stoker.jobs.visibility import must_be_admin

router = APIRouter(tags=["administration"])


class QuotaChange(Strict):
    """What is to change about a quota; what is left out stays, and is nothing where there was none."""

    team: str
    pool: str = "default"
    gpus: float | None = Field(default=None, description="GPUs that the team is guaranteed")
    cpus: float | None = Field(default=None, description="CPUs that jobs without a GPU are guaranteed")
    gpus_limit: float | None = Field(default=None, description="The most at once; null: no limit")
    cpus_limit: float | None = Field(default=None, description="The most at once; null: no limit")


@router.get("/quotas")
def list_quotas(session: Database, caller: Caller_, limit: Limit = 50, cursor: Cursor = None) -> Page[QuotaView]:
    """The quotas of one's own team; for administrators all."""
    return quotas.list_quotas(session, caller, limit, cursor)


@router.patch("/quotas", openapi_extra=body_of(QuotaChange))
@router.post("/quotas", openapi_extra=body_of(QuotaChange))
def set_quota(body: JsonBody, session: Database, caller: Caller_, services: Shared) -> QuotaView:
    """Set what a team is guaranteed in a pool, and its limits. For administrators."""
    must_be_admin(caller, "set a quota")
    asked = validate(QuotaChange, parse_json(body))
    changes = asked.model_dump(include=asked.model_fields_set & set(quotas.FIELDS))
    view = quotas.set_quota(session, asked.team, asked.pool, changes, actor=caller.user)
    session.commit()
    services.kick()
    return view


@router.delete("/quotas", status_code=204)
def remove_quota(team: str, session: Database, caller: Caller_, services: Shared, pool: str = "default") -> Response:
    """Guarantee a team nothing in a pool. For administrators."""
    must_be_admin(caller, "remove a quota")
    quotas.remove_quota(session, team, pool, actor=caller.user)
    session.commit()
    services.kick()
    return Response(status_code=204)


@router.get("/usage")
def read_usage(
    session: Database,
    caller: Caller_,
    by: By = "team",
    since: Annotated[str, Query(description='How far back, such as "7d" or "12h"')] = "7d",
) -> UsageReport:
    """What was used, by team or by user, against what each team is entitled to. Members see their own team."""
    return usage.usage(session, caller, by, parse_seconds("since", since))
