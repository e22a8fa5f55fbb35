"""Routes: pools of workers."""

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import Field

from stoker.api.dependencies import Caller_, Database, JsonBody
from stoker.api.parameters import Cursor, Limit
from stoker.api.people import body_of
from stoker.api.services import Shared
from stoker.jobs import pools
from stoker.jobs.documents import Strict, parse_json, validate
from stoker.jobs.pages import Page
from stoker.jobs.pools import PoolView
from stoker.jobs.visibility import must_be_admin

router = APIRouter(tags=["administration"])


class PoolChange(Strict):
    """What is to change about a pool."""

    fractions: bool = Field(description="Whether jobs may ask for a part of a GPU; a device is shared within one team")


@router.get("/pools")
def list_pools(session: Database, caller: Caller_, limit: Limit = 50, cursor: Cursor = None) -> Page[PoolView]:  # noqa: ARG001 - who signed in may read
    """The pools of workers, and whether a GPU may be shared there."""
    return pools.list_pools(session, limit, cursor)


@router.patch("/pools/{name}", openapi_extra=body_of(PoolChange))
def set_pool(
    name: Annotated[str, Path(description="A pool's name")],
    body: JsonBody,
    session: Database,
    caller: Caller_,
    services: Shared,
) -> PoolView:
    """Allow parts of a GPU in a pool, or no longer. For administrators."""
    must_be_admin(caller, "change a pool")
    asked = validate(PoolChange, parse_json(body))
    view = pools.set_fractions(session, name, asked.fractions, actor=caller.user)
    session.commit()
    services.kick()
    return view
