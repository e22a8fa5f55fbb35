"""What an operator watches: who waits for what and how long, how attempts end, leases, devices."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from stoker.jobs.capacity import live_fleet, other_fleet
from stoker.jobs.leases import broker_down
from stoker.jobs.lifecycle import State
from stoker.jobs.models import Attempt, Device, Incarnation, Job, Lease, Notification, Team, Worker
from stoker.jobs.reasons import BACKING_OFF, BROKER_DOWN, HELD, WAITS_FOR_PARENTS
from stoker.jobs.waits import or_other_version, why_not
from stoker.jobs.window import demand_of

RECENT = timedelta(hours=1)
SHARES = (0.5, 0.9, 0.99)  # of the waits


@dataclass(frozen=True, slots=True)
class WorkerGauge:
    """A live worker."""

    name: str
    lease_seconds: float  # what is left of its lease
    cpus: float
    cpus_used: float
    draining: bool


@dataclass(frozen=True, slots=True)
class DeviceGauge:
    """A device of a live worker, as shares of one."""

    worker: str
    uuid: str
    model: str
    used: float
    quarantined: bool


@dataclass(frozen=True, slots=True)
class Gauges:
    """All of it at one moment; "recent" is the last hour."""

    queue: dict[tuple[str, str], int]  # team, code of the reason -> jobs that wait
    oldest_seconds: dict[str, float]  # team -> the longest present wait of a job that could be placed
    running: dict[str, int]  # team -> jobs that run
    wait_seconds: dict[float, float]  # share -> recent attempts waited no longer than this; empty when there were none
    attempts: dict[tuple[str, str], int]  # outcome, failure class (or empty) -> recent attempts
    notifications: int  # that are still to be delivered
    workers: tuple[WorkerGauge, ...]
    devices: tuple[DeviceGauge, ...]


def read_gauges(session: Session) -> Gauges:
    """Look once."""
    workers = _workers(session)
    return Gauges(
        queue=_queue(session),
        oldest_seconds=_oldest(session),
        running=_running(session),
        wait_seconds=_waits(session),
        attempts=_attempts(session),
        notifications=_notifications(session),
        workers=workers,
        devices=_devices(session, [worker.name for worker in workers]),
    )


def _queue(session: Session) -> dict[tuple[str, str], int]:
    """Jobs that wait, by team and reason: equal jobs are looked at together."""
    backing_off = func.coalesce(Job.not_before > func.now(), False)
    flag = case(
        (Job.state == State.WAITING, WAITS_FOR_PARENTS.code),
        (Job.held, HELD.code),
        (backing_off, BACKING_OFF.code),
        else_="",
    )
    waiting = select(Job.team_id, Job.shape, Job.number, flag.label("flag")).where(
        Job.state.in_((State.WAITING, State.QUEUED))
    )
    one = waiting.subquery()
    alike = select(one.c.team_id, one.c.flag, func.min(one.c.number).label("first"), func.count().label("count"))
    counted = alike.group_by(one.c.team_id, one.c.flag, one.c.shape).subquery()  # of equal shape: fit alike
    statement = (
        select(Team.name, counted.c.flag, Job.spec["resources"], Job.pinned_machine, counted.c.count)
        .join(Team, Team.id == counted.c.team_id)
        .join(Job, Job.number == counted.c.first)
    )
    found: Counter[tuple[str, str]] = Counter()
    down, fleet, other = broker_down(session), live_fleet(session), other_fleet(session)
    rows: Sequence[Any] = session.execute(statement).all()
    for team, known, asked, machine, count in rows:
        demand = demand_of(asked, machine)
        reason = BROKER_DOWN if down else or_other_version(why_not(demand, fleet), demand, fleet, other)
        found[team, known or reason.code] += count
    return dict(found)


def _oldest(session: Session) -> dict[str, float]:
    waits = func.max(func.extract("epoch", func.now() - func.coalesce(Job.queued_at, Job.created_at)))
    statement = (
        select(Team.name, waits)
        .join(Team, Team.id == Job.team_id)
        .where(Job.state == State.QUEUED, Job.held.is_(False))
        .group_by(Team.name)
    )
    return {team: float(seconds) for team, seconds in session.execute(statement)}


def _running(session: Session) -> dict[str, int]:
    statement = (
        select(Team.name, func.count())
        .select_from(Job)
        .join(Team, Team.id == Job.team_id)
        .where(Job.state == State.RUNNING)
        .group_by(Team.name)
    )
    rows: Sequence[Any] = session.execute(statement).all()
    return dict(rows)


def _waits(session: Session) -> dict[float, float]:
    waited = func.extract("epoch", Job.started_at - Job.created_at)
    statement = select(*(func.percentile_cont(share).within_group(waited) for share in SHARES)).where(
        Job.started_at > func.now() - RECENT
    )
    row = session.execute(statement).one()
    return {share: float(seconds) for share, seconds in zip(SHARES, row, strict=True) if seconds is not None}


def _attempts(session: Session) -> dict[tuple[str, str], int]:
    klass = func.coalesce(Attempt.failure["class"].astext, "").label("class")
    ended = select(Attempt.outcome, klass).where(Attempt.ended_at > func.now() - RECENT).subquery()
    statement = select(*ended.c, func.count()).group_by(*ended.c)
    rows: Sequence[Any] = session.execute(statement).all()
    return {(outcome, failure): count for outcome, failure, count in rows}


def _notifications(session: Session) -> int:
    open_ = Notification.sent_at.is_(None) & Notification.failed_at.is_(None)
    return int(session.scalar(select(func.count()).select_from(Notification).where(open_)) or 0)


def _workers(session: Session) -> tuple[WorkerGauge, ...]:
    left = func.extract("epoch", Lease.expires_at - func.clock_timestamp())
    statement = (
        select(Worker, left)
        .join(Incarnation, (Incarnation.worker_id == Worker.id) & Incarnation.closed_at.is_(None))
        .join(Lease, Lease.holder_id == Incarnation.id)
        .order_by(Worker.id)
    )
    return tuple(
        WorkerGauge(one.name, float(seconds), one.cpus_milli / 1000, one.cpus_used_milli / 1000, one.draining)
        for one, seconds in session.execute(statement)
    )


def _devices(session: Session, workers: list[str]) -> tuple[DeviceGauge, ...]:
    statement = (
        select(Worker.name, Device)
        .join(Worker, Worker.id == Device.worker_id)
        .where(Worker.name.in_(workers), Device.capacity_milli > 0)
        .order_by(Worker.id, Device.position)
    )
    return tuple(
        DeviceGauge(worker, one.uuid, one.model, one.used_milli / one.capacity_milli, one.quarantined_at is not None)
        for worker, one in session.execute(statement)
    )
