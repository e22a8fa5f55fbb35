"""The fleet and the mix of jobs as the planner sees them, read from the database."""

import time
from collections import defaultdict
from collections.abc import Callable

from sqlalchemy import ColumnElement, and_, func, or_, select, text
from sqlalchemy.orm import Session

from stoker.jobs.fit import Node, Unit
from stoker.jobs.lifecycle import AttemptState
from stoker.jobs.mix import MOVED, Mix, Shape, shape_of
from stoker.jobs.models import Allocation, Attempt, Device, Incarnation, Job, Lease, Pool, Worker, WorkerData
from stoker.jobs.placement import LeastLoss
from stoker.jobs.window import demand_of

WHOLE_MILLI = 1000  # of a device
_WORKER = (
    "id", "name", "pool", "cpu_model", "cpus_milli", "cpus_used_milli", "memory_bytes", "memory_used_bytes",
    "attempts_limit", "attempts_used",
)  # fmt: skip
_DEVICE = ("id", "worker_id", "model", "memory_bytes", "capacity_milli", "used_milli", "quarantined_at")
KNOWN_DAYS = 7  # a worker unseen for longer says nothing about what can run
MIX_DAYS, MIX_JOBS = 28, 5000  # of which the mix is learned; a sample of 100 already places within 0.1 points
MIX_SECONDS = 60.0  # how long a mix that was read is good


class RecentMix:
    """The rule of placement for the jobs of the last weeks; they are counted again when a minute has passed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._read_at = 0.0
        self._rule: LeastLoss | None = None

    def rule(self, session: Session) -> LeastLoss:
        """The rule; the same object, with all that it worked out, while the mix stays much the same."""
        if self._rule is None or self._clock() - self._read_at >= MIX_SECONDS:
            self._read_at = self._clock()
            mix = Mix.of(recent_shapes(session))
            if self._rule is None or mix.distance(self._rule.mix) > MOVED:
                self._rule = LeastLoss(mix)
        return self._rule


def recent_shapes(session: Session) -> dict[Shape, float]:
    """How many of the latest jobs asked for each shape."""
    latest = (
        select(func.min(Job.number).label("first"), func.count().label("seen"))
        .where(Job.number > select(func.coalesce(func.max(Job.number), 0)).scalar_subquery() - MIX_JOBS)
        .where(Job.created_at > func.now() - text(f"interval '{MIX_DAYS} days'"))
        .group_by(Job.shape)
        .subquery()
    )
    rows = session.execute(
        select(Job.spec["resources"].label("resources"), latest.c.seen).join(latest, latest.c.first == Job.number)
    )
    counts: dict[Shape, float] = defaultdict(float)
    for row in rows:
        counts[shape_of(demand_of(row.resources))] += row.seen
    return counts


def live_fleet(session: Session) -> list[Node]:
    """The workers that take new jobs now: live, not draining, not suspect."""
    live = (
        select(Incarnation.worker_id)
        .join(Lease, Lease.holder_id == Incarnation.id)
        .where(Incarnation.closed_at.is_(None), Lease.expires_at > func.clock_timestamp())
    )
    ready = or_(Worker.suspect_until.is_(None), Worker.suspect_until <= func.now())
    return _nodes(session, and_(Worker.id.in_(live), Worker.draining.is_(False), ready))


def known_fleet(session: Session) -> list[Node]:
    """The workers of the last seven days, drained and lost ones too, with devices that are missing or quarantined."""
    seen = Worker.last_seen_at > func.now() - text(f"interval '{KNOWN_DAYS} days'")
    opened = select(Incarnation.worker_id).where(Incarnation.closed_at.is_(None))
    return _nodes(session, or_(seen, Worker.id.in_(opened)), whole=True)


def _nodes(session: Session, which: ColumnElement[bool], *, whole: bool = False) -> list[Node]:
    """Workers with what is free on them; ``whole``: with all that they have when everything is in order."""
    columns = [getattr(Worker, name) for name in _WORKER]
    statement = select(*columns, Pool.fractions).join(Pool, Pool.name == Worker.pool).where(which)
    workers = session.execute(statement.order_by(Worker.id)).all()
    if not workers:
        return []
    shared = any(worker.fractions for worker in workers)
    teams, data = _sharing(session) if shared else {}, _data(session)
    units: dict[int, list[Unit]] = defaultdict(list)
    devices = select(*(getattr(Device, name) for name in _DEVICE)).join(Worker, Worker.id == Device.worker_id)
    for device in session.execute(devices.where(which).order_by(Device.worker_id, Device.position)):
        usable = WHOLE_MILLI if whole else 0 if device.quarantined_at else device.capacity_milli
        if usable:
            free = usable - device.used_milli
            units[device.worker_id].append(
                Unit(device.id, device.model, device.memory_bytes, free, usable, teams.get(device.id))
            )
    return [
        Node(
            id=worker.id,
            name=worker.name,
            cpu_model=worker.cpu_model,
            cpus_milli=worker.cpus_milli,
            cpus_free_milli=worker.cpus_milli - worker.cpus_used_milli,
            memory_bytes=worker.memory_bytes,
            memory_free_bytes=worker.memory_bytes - worker.memory_used_bytes,
            attempts_limit=worker.attempts_limit,
            attempts_free=worker.attempts_limit - worker.attempts_used,
            units=tuple(units[worker.id]),
            pool=worker.pool,
            fractions=worker.fractions,
            data=data.get(worker.id, frozenset()),
        )
        for worker in workers
    ]


def _sharing(session: Session) -> dict[int, int]:
    """The devices of which jobs hold parts, and the team that these belong to."""
    statement = (
        select(Allocation.device_id, Job.team_id)
        .join(Attempt, Attempt.id == Allocation.attempt_id)
        .join(Job, Job.number == Attempt.job_number)
        .join(Device, Device.id == Allocation.device_id)
        .where(Attempt.state != AttemptState.ENDED, Allocation.milli < Device.capacity_milli)
    )
    return {row.device_id: row.team_id for row in session.execute(statement)}


def _data(session: Session) -> dict[int, frozenset[str]]:
    """The data sets that each worker used in the last days."""
    recent = WorkerData.used_at > func.now() - text(f"interval '{KNOWN_DAYS} days'")
    found: dict[int, set[str]] = defaultdict(set)
    for row in session.execute(select(WorkerData.worker_id, WorkerData.data).where(recent)):
        found[row.worker_id].add(row.data)
    return {worker: frozenset(names) for worker, names in found.items()}
