"""Routes: submit, list, show."""

import hashlib
import json
import re
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Response

from stoker.api.dependencies import Caller_, Database, JsonBody, Responses, SeenJob
from stoker.api.parameters import Cursor, Limit, Number
from stoker.api.problems import PREFIX
from stoker.api.services import Services, Shared
from stoker.errors import InvalidInput
from stoker.jobs import explaining, reads_jobs, submissions
from stoker.jobs.accounts import Caller
from stoker.jobs.documents import parse_json
from stoker.jobs.explaining import Why
from stoker.jobs.live import with_live
from stoker.jobs.models import User
from stoker.jobs.pages import Page
from stoker.jobs.reads_jobs import AttemptView, EventView, Filters, JobView
from stoker.jobs.refusals import refuse_network, refuse_notify
from stoker.jobs.spec import JobSpec, parse_spec

router = APIRouter(prefix="/jobs", tags=["jobs"])

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
SPEC_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/JobSpec"}}},
    }
}
_AGAIN: Responses = {200: {"model": JobView, "description": "The Idempotency-Key is known: the job that was made then"}}


async def wanted(
    state: Annotated[list[str] | None, Query(description="One state; may be repeated")] = None,
    owner: str | None = None,
    team: str | None = None,
    tag: str | None = None,
    name: str | None = None,
) -> Filters:
    """Which jobs a list shows."""
    return Filters(tuple(state or ()), owner, team, tag, name)


def linked(services: Services, view: JobView) -> JobView:
    """A job with its links."""
    return reads_jobs.with_links(view, PREFIX, services.settings.flower_url)


def spec_of(services: Services, body: bytes, caller: Caller) -> JobSpec:
    """The job that a body describes, if the administrator allows what it asks for.

    Raises InvalidInput.
    """
    spec = parse_spec(parse_json(body))
    carrier = services.carrier
    refuse_network(spec.network, services.settings.network)
    refuse_notify(spec.notify, carrier.allowance, mails=carrier.mail is not None, registered=caller.email)
    return spec


@router.post("", status_code=201, openapi_extra=SPEC_BODY, responses=_AGAIN)
def submit(
    body: JsonBody,
    session: Database,
    caller: Caller_,
    services: Shared,
    response: Response,
    idempotency_key: Annotated[str | None, Header(description="The same key and body again: the same job")] = None,
) -> JobView:
    """Accept a job and queue it."""
    if idempotency_key is not None and not _KEY.fullmatch(idempotency_key):
        raise InvalidInput("Idempotency-Key", "cannot be used", "give 1 to 255 ASCII characters without blanks")
    spec = spec_of(services, body, caller)
    meant = hashlib.sha256(json.dumps(spec.document(), sort_keys=True).encode()).digest()
    user = User(
        id=caller.user_id, name=caller.user, team_id=caller.team_id, role=caller.role
    )  # known already: not asked for again
    job, created = submissions.add_job(session, spec, user, key=idempotency_key, request_sha256=meant)
    session.commit()  # from here the job is ours to run, whatever becomes of Redis
    services.kick()
    response.status_code = 201 if created else 200
    response.headers["Location"] = f"{PREFIX}/jobs/{job.number}"
    view = (
        reads_jobs.view_new_job(job, caller)
        if created
        else reads_jobs.view_job(session, caller, job.number, services.foresight)
    )
    return linked(services, view)


@router.get("")
def list_jobs(
    session: Database,
    caller: Caller_,
    services: Shared,
    filters: Annotated[Filters, Depends(wanted)],
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[JobView]:
    """Jobs, the latest first. Why one does not run yet (`reason`) is told where it is asked for alone."""
    page = reads_jobs.list_jobs(session, caller, filters, limit, cursor)
    views = with_live(session, services.foresight.known(session), page.items)
    return Page([linked(services, view) for view in views], page.next)


@router.get("/{number}")
def show(number: Number, session: Database, caller: Caller_, services: Shared) -> JobView:
    """One job."""
    view = reads_jobs.view_job(session, caller, number, services.foresight)
    return linked(services, with_live(session, services.foresight.known(session), [view])[0])


@router.get("/{number}/why")
def why(job: SeenJob, session: Database, services: Shared) -> Why:
    """What a job waits for, its place, when it is expected to start; for one that does not wait, its state."""
    found = explaining.why(session, job, services.foresight)
    session.commit()  # the estimate that was told
    return found


@router.get("/{number}/attempts")
def attempts(job: SeenJob, session: Database, limit: Limit = 50, cursor: Cursor = None) -> Page[AttemptView]:
    """The attempts at a job, the first one first."""
    return reads_jobs.list_attempts(session, job.number, limit, cursor)


@router.get("/{number}/events")
def events(job: SeenJob, session: Database, limit: Limit = 50, cursor: Cursor = None) -> Page[EventView]:
    """What happened to a job, in order."""
    return reads_jobs.list_events(session, job.number, limit, cursor)
