"""Routes: what an owner does to a job that exists: cancel, hold, release, retry, preempt, first, change."""

from collections.abc import Callable
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import Field
from sqlalchemy.orm import Session

from stoker.api.dependencies import Caller_, Database, JsonBody, SeenJob
from stoker.api.jobs import linked
from stoker.api.people import body_of
from stoker.api.services import Services, Shared
from stoker.jobs import changes, reads_jobs, steering, submissions
from stoker.jobs.accounts import Caller
from stoker.jobs.documents import Strict, parse_json, validate
from stoker.jobs.models import Job
from stoker.jobs.reads_jobs import JobView
from stoker.jobs.spec_fields import Name, Tag
from stoker.jobs.visibility import may_steer

router = APIRouter(prefix="/jobs/{number}", tags=["jobs"])


class Helm:
    """One act on one job, by somebody who may."""

    def __init__(self, job: SeenJob, session: Database, caller: Caller_, services: Shared) -> None:
        may_steer(caller, job)
        self.number, self.admin = job.number, caller.admin
        self._session: Session = session
        self._caller: Caller = caller
        self._services: Services = services
        session.rollback()  # what the act locks, it locks in its own order

    def act(self, change: Callable[[Session, int, str], Job]) -> JobView:
        """Make a change as the caller, commit it, wake the dispatcher, and show the job."""
        change(self._session, self.number, self._caller.user)
        self._session.commit()
        self._services.kick()
        return linked(
            self._services, reads_jobs.view_job(self._session, self._caller, self.number, self._services.foresight)
        )


AtHelm = Annotated[Helm, Depends()]


@router.post("/cancel")
def cancel(helm: AtHelm) -> JobView:
    """Cancel a job: at once while it waits, else as soon as its worker has stopped it. Once more changes nothing."""
    return helm.act(lambda session, number, actor: submissions.cancel(session, number, actor=actor))


@router.post("/hold")
def hold(helm: AtHelm) -> JobView:
    """Keep a waiting job from starting until it is released."""
    return helm.act(lambda session, number, actor: steering.set_held(session, number, True, actor=actor))


@router.post("/release")
def release(helm: AtHelm) -> JobView:
    """Let a held job take its turn again."""
    return helm.act(lambda session, number, actor: steering.set_held(session, number, False, actor=actor))


@router.post("/preempt")
def preempt(helm: AtHelm) -> JobView:
    """Ask a running job to make room: it writes a checkpoint, stops, and goes on later."""
    return helm.act(lambda session, number, actor: steering.preempt(session, number, actor=actor))


@router.post("/retry")
def retry(
    helm: AtHelm,
    origin: Annotated[str, Query(alias="from", description="latest, best (checkpoint) or scratch")] = "latest",
) -> JobView:
    """Queue a failed or cancelled job again."""
    return helm.act(lambda session, number, actor: steering.retry(session, number, actor=actor, origin=origin))


class JobChange(Strict):
    """What is to change about a job; what is left out stays."""

    priority: Literal["low", "normal", "high", "urgent"] | None = None
    name: Name | None = None
    tags: list[Tag] | None = Field(default=None, max_length=50)


@router.post("/first")
def first(helm: AtHelm) -> JobView:
    """Let a waiting job go before the others of its owner, within its priority."""
    return helm.act(lambda session, number, actor: changes.first(session, number, actor=actor))


@router.patch("", openapi_extra=body_of(JobChange))
def change(helm: AtHelm, body: JsonBody) -> JobView:
    """Give a job another priority, name or tags. `urgent`: one of a team at a time, administrators as they like."""
    asked = validate(JobChange, parse_json(body)).model_dump()
    return helm.act(
        lambda session, number, actor: changes.change(session, number, actor=actor, admin=helm.admin, **asked)
    )
