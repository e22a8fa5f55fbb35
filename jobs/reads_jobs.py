"""Jobs, their attempts and events, as they are shown."""

from __future__ import annotations  # a Select of several columns cannot be written for every SQLAlchemy at run time

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, and_, select
from sqlalchemy.orm import Session

from stoker.errors import InvalidInput, JobNotFound
from stoker.jobs.accounts import Caller
from stoker.jobs.explaining import Explanation, explain
from stoker.jobs.lifecycle import AttemptState, State
from stoker.jobs.models import Attempt, Event, Job, Result, Team, User, Worker
from stoker.jobs.pages import Page, cursor, position
from stoker.jobs.prospects import Foresight
from stoker.jobs.spec import PRIORITIES
from stoker.jobs.visibility import visible
from stoker.quoting import quoted

_PRIORITY_NAMES = {level: name for name, level in PRIORITIES.items()}
_STARTED = frozenset({State.RUNNING, State.SUCCEEDED, State.FAILED, State.CANCELLED})


@dataclass(frozen=True, slots=True)
class Links:
    """Where there is more: the job itself, and its task in Flower."""

    self: str
    flower: str | None = None


@dataclass(frozen=True, slots=True)
class ResultSummary:
    """The one number of a result."""

    accuracy: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job as it is shown."""

    number: int
    name: str
    state: State
    kind: str
    owner: str
    team: str
    priority: str
    tags: list[str]
    spec: dict[str, Any]
    progress: dict[str, Any] | None  # epoch, epochs, step, steps (completed), fraction, phase, images_per_second, cell
    attempt: int | None  # ordinal of the latest; none before the first
    attempt_id: UUID | None
    worker: str | None
    device: str | None
    retries_used: int
    max_retries: int
    cancel_requested_at: datetime | None
    created_at: datetime
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    failure: dict[str, Any] | None  # class, evidence, fix
    result: ResultSummary | None
    loss: float | None = None  # the latest of a running job; null also where it is no finite number
    ends_at: datetime | None = None  # when a running job is expected to end
    reason: Explanation | None = None  # why it does not run yet; shown where one job is asked for
    links: Links = field(default_factory=lambda: Links(""))


@dataclass(frozen=True, slots=True)
class Filters:
    """Which jobs a list shows; None: all. Texts are compared whole and literally."""

    states: tuple[str, ...] = ()
    owner: str | None = None
    team: str | None = None
    tag: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptView:
    """One try at a job."""

    attempt: int
    id: UUID
    state: AttemptState
    outcome: str | None
    worker: str
    device: str
    machine: str | None
    resumed_step: int
    placed_at: datetime
    claimed_at: datetime | None
    first_step_at: datetime | None
    ended_at: datetime | None
    ran_seconds: float | None
    peak_memory_bytes: int | None
    peak_gpu_memory_bytes: int | None
    cpu_seconds: float | None
    software: dict[str, Any] | None  # python, torch, packages, device, driver
    failure: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventView:
    """Something that happened to a job."""

    id: int
    at: datetime
    name: str
    actor: str
    reason: str
    attempt: int | None
    details: dict[str, Any] | None


def _jobs() -> Select[Job, str, str, Attempt, str, int, float | None]:
    latest = and_(Attempt.job_number == Job.number, Attempt.ordinal == Job.attempts)
    return (
        select(Job, User.name, Team.name, Attempt, Worker.name, Result.job_number, Result.accuracy)
        .join(User, User.id == Job.owner_id)
        .join(Team, Team.id == Job.team_id)
        .outerjoin(Attempt, latest)
        .outerjoin(Worker, Worker.id == Attempt.worker_id)
        .outerjoin(Result, Result.job_number == Job.number)
    )


def view_job(session: Session, caller: Caller, number: int, foresight: Foresight) -> JobView:
    """A job that the caller may see, and why it does not run yet; raises JobNotFound."""
    statement = _jobs().where(Job.number == number, visible(caller, Job.team_id))
    row = session.execute(statement, execution_options={"populate_existing": True}).one_or_none()
    if row is None:
        raise JobNotFound(number)
    return replace(_view(*row), reason=explain(session, row[0], foresight))


def view_new_job(job: Job, caller: Caller) -> JobView:
    """A job that the caller has just submitted, without asking the database again."""
    return _view(job, caller.user, caller.team, None, None, None, None)


def list_jobs(session: Session, caller: Caller, filters: Filters, limit: int, after: str | None) -> Page[JobView]:
    """The jobs that a caller may see, the latest first.

    Raises InvalidInput: an unknown state or a cursor of another list.
    """
    statement = _jobs().where(visible(caller, Job.team_id)).order_by(Job.number.desc()).limit(limit + 1)
    if (last := position("job", after)) is not None:
        statement = statement.where(Job.number < last)
    found = [_view(*row) for row in session.execute(_filtered(statement, filters))]
    more = cursor("job", found[limit - 1].number) if len(found) > limit else None
    return Page(found[:limit], more)


def _filtered(
    statement: Select[Job, str, str, Attempt, str, int, float | None], filters: Filters
) -> Select[Job, str, str, Attempt, str, int, float | None]:
    if unknown := set(filters.states) - set(State):
        raise InvalidInput("state", f"{quoted(min(unknown), 40)} is not known", f"known: {', '.join(State)}")
    if filters.states:
        statement = statement.where(Job.state.in_(filters.states))
    if filters.owner is not None:
        statement = statement.where(User.name == filters.owner)
    if filters.team is not None:
        statement = statement.where(Team.name == filters.team)
    if filters.tag is not None:
        statement = statement.where(Job.tags.contains([filters.tag]))
    if filters.name is not None:
        statement = statement.where(Job.name == filters.name)
    return statement


def _view(
    job: Job,
    owner: str,
    team: str,
    attempt: Attempt | None,
    worker: str | None,
    result: int | None,
    accuracy: float | None,
) -> JobView:
    state = State(job.state)
    here = attempt is not None and (state in _STARTED or attempt.state != AttemptState.ENDED)
    return JobView(
        number=job.number,
        name=job.name,
        state=state,
        kind=job.kind,
        owner=owner,
        team=team,
        priority=_PRIORITY_NAMES[job.priority],
        tags=job.tags,
        spec=job.spec,
        progress=_progress(attempt.progress) if attempt is not None and here else None,
        attempt=job.attempts or None,
        attempt_id=attempt.id if attempt is not None else None,
        worker=worker if here else None,
        device=attempt.device if attempt is not None and here else None,
        retries_used=job.retries_used,
        max_retries=job.spec["max_retries"],
        cancel_requested_at=job.cancel_requested_at,
        created_at=job.created_at,
        queued_at=job.queued_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        failure=job.failure,
        result=ResultSummary(accuracy) if result is not None else None,
    )


def _progress(reported: dict[str, Any] | None) -> dict[str, Any] | None:
    """What a trainer reported, with the fraction of its steps that are completed."""
    if reported is None:
        return None
    step, steps = reported.get("step"), reported.get("steps")
    return reported | {"fraction": round(step / steps, 6) if step is not None and steps else None}


def with_links(view: JobView, prefix: str, flower_url: str | None) -> JobView:
    """Add where the job is found over HTTP, and its task in Flower, once it has one."""
    flower = f"{flower_url.rstrip('/')}/task/{view.attempt_id}" if flower_url and view.attempt_id else None
    return replace(view, links=Links(f"{prefix}/jobs/{view.number}", flower))


def list_attempts(session: Session, number: int, limit: int, after: str | None) -> Page[AttemptView]:
    """The attempts at a job, the first one first."""
    statement = (
        select(Attempt, Worker.name)
        .join(Worker, Worker.id == Attempt.worker_id)
        .where(Attempt.job_number == number, Attempt.ordinal > (position("attempt", after) or 0))
        .order_by(Attempt.ordinal)
        .limit(limit + 1)
    )
    found = [
        AttemptView(
            attempt=attempt.ordinal,
            id=attempt.id,
            state=AttemptState(attempt.state),
            outcome=attempt.outcome,
            worker=worker,
            device=attempt.device,
            machine=attempt.machine,
            resumed_step=attempt.resumed_step,
            placed_at=attempt.placed_at,
            claimed_at=attempt.claimed_at,
            first_step_at=attempt.first_step_at,
            ended_at=attempt.ended_at,
            ran_seconds=attempt.ran_seconds,
            peak_memory_bytes=attempt.peak_memory_bytes,
            peak_gpu_memory_bytes=attempt.peak_gpu_memory_bytes,
            cpu_seconds=attempt.cpu_seconds,
            software=attempt.software,
            failure=attempt.failure,
        )
        for attempt, worker in session.execute(statement)
    ]
    return Page(found[:limit], cursor("attempt", found[limit - 1].attempt) if len(found) > limit else None)


def list_events(session: Session, number: int, limit: int, after: str | None) -> Page[EventView]:
    """What happened to a job, in order."""
    statement = (
        select(Event, Attempt.ordinal)
        .outerjoin(Attempt, Attempt.id == Event.attempt_id)
        .where(Event.job_number == number, Event.id > (position("event", after) or 0))
        .order_by(Event.id)
        .limit(limit + 1)
    )
    found = [
        EventView(
            id=event.id,
            at=event.at,
            name=event.name,
            actor=event.actor,
            reason=event.reason,
            attempt=ordinal,
            details=event.details,
        )
        for event, ordinal in session.execute(statement)
    ]
    return Page(found[:limit], cursor("event", found[limit - 1].id) if len(found) > limit else None)
