"""Routes: the queue, and what would become of a job that is not submitted yet."""

from fastapi import APIRouter

from stoker.api.dependencies import Caller_, Database, JsonBody
from stoker.api.jobs import SPEC_BODY, spec_of
from stoker.api.parameters import Limit
from stoker.api.services import Shared
from stoker.jobs import explaining
from stoker.jobs.explaining import QueueView, Why

router = APIRouter(tags=["queue"])


@router.get("/queue")
def read_queue(session: Database, caller: Caller_, services: Shared, limit: Limit = 50) -> QueueView:
    """What waits, the next to start first; how shares stand; how good past estimates were."""
    view = explaining.read_queue(session, caller, services.foresight, limit)
    session.commit()  # the estimates that were told
    return view


@router.post("/plan", openapi_extra=SPEC_BODY)
def plan(body: JsonBody, session: Database, caller: Caller_, services: Shared) -> Why:
    """What would become of this job if it were submitted now. Stores nothing."""
    return explaining.foretell(session, caller, spec_of(services, body, caller), services.foresight)
