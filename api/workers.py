"""Routes: workers."""

import contextlib
from typing import Annotated

from fastapi import APIRouter, Query, Response

from stoker.api.dependencies import Caller_, Database
from stoker.api.parameters import Cursor, Limit, Truth
from stoker.api.services import Shared
from stoker.jobs import fleet, reads_fleet, steering
from stoker.jobs.pages import Page
from stoker.jobs.reads_fleet import WorkerView
from stoker.jobs.steering import NotRunning
from stoker.jobs.visibility import must_be_admin

router = APIRouter(prefix="/workers", tags=["workers"])

Now = Annotated[bool, Truth, Query(description="Preempt what runs there: it goes on elsewhere from a checkpoint")]


@router.get("")
def list_workers(session: Database, caller: Caller_, limit: Limit = 50, cursor: Cursor = None) -> Page[WorkerView]:
    """Every worker: what it offers, what of that is taken, and whether it is there."""
    return reads_fleet.list_workers(session, caller, limit, cursor)


@router.post("/{name}/drain", status_code=204)
def drain(name: str, session: Database, caller: Caller_, services: Shared, now: Now = False) -> Response:
    """Let a worker take nothing new; what runs there finishes, or with `now` makes room. For admins."""
    must_be_admin(caller, "drain a worker")
    fleet.set_draining(session, name, True, actor=caller.user)
    session.commit()
    if now:
        for number in reads_fleet.running_on(session, name):
            session.rollback()  # what a preemption locks, it locks in its own order
            with contextlib.suppress(NotRunning):  # it has ended meanwhile
                steering.preempt(session, number, actor=caller.user, reason=f"{name} is drained")
                session.commit()
        services.kick()
    return Response(status_code=204)


@router.post("/{name}/resume", status_code=204)
def resume(name: str, session: Database, caller: Caller_, services: Shared) -> Response:
    """Let a drained worker take jobs again. For admins."""
    must_be_admin(caller, "resume a worker")
    fleet.set_draining(session, name, False, actor=caller.user)
    session.commit()
    services.kick()
    return Response(status_code=204)
