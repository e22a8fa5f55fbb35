"""Workers as they are shown."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from stoker.jobs.accounts import Caller
from stoker.jobs.fleet import STOPPED
from stoker.jobs.lifecycle import AttemptState
from stoker.jobs.models import Attempt, Device, Incarnation, Job, Lease, Worker
from stoker.jobs.pages import Page, cursor, position
from stoker.jobs.protocol import PROTOCOL
from stoker.jobs.visibility import visible

WorkerState = Literal["live", "suspect", "draining", "other_version", "stopping", "stopped", "lost"]


@dataclass(frozen=True, slots=True)
class DeviceView:
    """A GPU of a worker, in thousandths."""

    uuid: str
    position: int
    model: str
    memory_bytes: int
    used_milli: int
    capacity_milli: int
    quarantined: str | None  # the reason


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """A worker: what it offers, and how much of that is taken."""

    name: str
    state: WorkerState
    host: str | None
    cpus: float
    cpus_used: float
    memory_bytes: int
    memory_used_bytes: int
    attempts: int
    attempts_limit: int
    devices: list[DeviceView]
    jobs: list[int]  # only those that the caller may see
    last_seen_at: datetime
    version: str | None
    protocol: int | None  # only workers that speak the server's own get jobs
    notice: str  # such as that jobs are not confined there; empty: nothing to say


def list_workers(session: Session, caller: Caller, limit: int, after: str | None) -> Page[WorkerView]:
    """All workers that were ever seen, in the order of their first start."""
    now = func.clock_timestamp()
    latest = select(Incarnation.closed_reason).where(Incarnation.worker_id == Worker.id)
    closed = latest.order_by(Incarnation.started_at.desc()).limit(1).correlate(Worker).scalar_subquery()
    statement = (
        select(Worker, Incarnation, Lease.expires_at > now, Worker.suspect_until > now, closed)
        .outerjoin(Incarnation, (Incarnation.worker_id == Worker.id) & Incarnation.closed_at.is_(None))
        .outerjoin(Lease, Lease.holder_id == Incarnation.id)
        .where(Worker.id > (position("worker", after) or 0))
        .order_by(Worker.id)
        .limit(limit + 1)
    )
    rows = session.execute(statement).all()
    shown = [row[0].id for row in rows[:limit]]
    devices, jobs = _devices(session, shown), _jobs(session, caller, shown)
    items = [
        _view(worker, start, _state(worker, start, live, suspect, closed), devices[worker.id], jobs[worker.id])
        for worker, start, live, suspect, closed in rows[:limit]
    ]
    return Page(items, cursor("worker", shown[-1]) if len(rows) > limit else None)


def running_on(session: Session, worker: str) -> list[int]:
    """The numbers of the jobs that are placed on a worker or run there."""
    statement = (
        select(Attempt.job_number)
        .join(Worker, Worker.id == Attempt.worker_id)
        .where(Worker.name == worker, Attempt.state != AttemptState.ENDED)
        .order_by(Attempt.job_number)
    )
    return list(session.scalars(statement))


def _state(
    worker: Worker, start: Incarnation | None, live: bool | None, suspect: bool | None, closed: str | None
) -> WorkerState:
    if closed and closed.startswith(STOPPED):
        return "stopped"
    if not live or start is None:
        return "lost"
    if suspect and not worker.suspect_count:  # nothing went unclaimed: it has asked for no more by itself
        return "stopping"
    if start.protocol != PROTOCOL:
        return "other_version"
    if worker.draining:
        return "draining"
    return "suspect" if suspect else "live"


def _devices(session: Session, workers: list[int]) -> dict[int, list[DeviceView]]:
    found: dict[int, list[DeviceView]] = defaultdict(list)
    for one in session.scalars(select(Device).where(Device.worker_id.in_(workers)).order_by(Device.position)):
        view = DeviceView(
            one.uuid,
            one.position,
            one.model,
            one.memory_bytes,
            one.used_milli,
            one.capacity_milli,
            one.quarantine_reason,
        )
        found[one.worker_id].append(view)
    return found


def _jobs(session: Session, caller: Caller, workers: list[int]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    statement = (
        select(Attempt.worker_id, Attempt.job_number)
        .join(Job, Job.number == Attempt.job_number)
        .where(Attempt.worker_id.in_(workers), Attempt.state != AttemptState.ENDED, visible(caller, Job.team_id))
        .order_by(Attempt.job_number)
    )
    for worker, number in session.execute(statement):
        found[worker].append(number)
    return found


def _view(
    worker: Worker, start: Incarnation | None, state: WorkerState, devices: list[DeviceView], jobs: list[int]
) -> WorkerView:
    return WorkerView(
        name=worker.name,
        state=state,
        host=start.host if start else None,
        cpus=worker.cpus_milli / 1000,
        cpus_used=worker.cpus_used_milli / 1000,
        memory_bytes=worker.memory_bytes,
        memory_used_bytes=worker.memory_used_bytes,
        attempts=worker.attempts_used,
        attempts_limit=worker.attempts_limit,
        devices=devices,
        jobs=jobs,
        last_seen_at=worker.last_seen_at,
        version=start.version if start else None,
        protocol=start.protocol if start else None,
        notice=worker.notice,
    )
