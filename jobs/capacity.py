"""The fleet and the mix of jobs as the planner sees them, read from the database."""

import time
from collections import defaultdict
from collections.abc import Callable

from sqlalchemy import ARRAY, BigInteger, ColumnElement, and_, any_, cast, func, or_, select, text
from sqlalchemy.orm import Session

from stoker.jobs.fit import Node, Unit
from stoker.jobs.lifecycle import AttemptState
from stoker.jobs.mix import MOVED, Mix, Shape, shape_of
from stoker.jobs.models import Allocation, Attempt, Device, Incarnation, Job, Lease, Pool, Worker, WorkerData
from stoker.jobs.placement import LeastLoss
from stoker.jobs.protocol import PROTOCOL
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


def _taking(spoken: ColumnElement[bool]) -> ColumnElement[bool]:
    live = (
        select(Incarnation.worker_id)
        .join(Lease, Lease.holder_id == Incarnation.id)
        .where(Incarnation.closed_at.is_(None), Lease.expires_at > func.clock_timestamp(), spoken)
    )
    ready = or_(Worker.suspect_until.is_(None), Worker.suspect_until <= func.now())
    return and_(Worker.id.in_(live), Worker.draining.is_(False), ready)


_OURS, _OTHERS = _taking(Incarnation.protocol == PROTOCOL), _taking(Incarnation.protocol != PROTOCOL)


def live_fleet(session: Session) -> list[Node]:
    """The workers that take new jobs now: live, not draining, not suspect, and of our own protocol."""
    return _nodes(session, _OURS)


def other_fleet(session: Session) -> list[Node]:
    """The workers that would take new jobs if their Stoker spoke our protocol."""
    return _nodes(session, _OTHERS)


def known_fleet(session: Session) -> list[Node]:
    """The workers of the last seven days, drained and lost ones too, with devices that are missing or quarantined."""
    seen = Worker.last_seen_at > func.now() - text(f"interval '{KNOWN_DAYS} days'")
    opened = select(Incarnation.worker_id).where(Incarnation.closed_at.is_(None))
    return _nodes(session, or_(seen, Worker.id.in_(opened)), whole=True)


_DATA = (  # that a worker used in the last days
    select(func.array_agg(WorkerData.data))
    .where(WorkerData.worker_id == Worker.id)
    .where(WorkerData.used_at > func.now() - text(f"interval '{KNOWN_DAYS} days'"))
    .scalar_subquery()
)
_WORKERS = (
    select(*(getattr(Worker, name) for name in _WORKER), Pool.fractions, _DATA.label("data"))
    .join(Pool, Pool.name == Worker.pool)
    .order_by(Worker.id)
)
_DEVICES = select(*(getattr(Device, name) for name in _DEVICE)).order_by(Device.worker_id, Device.position)


def _nodes(session: Session, which: ColumnElement[bool], *, whole: bool = False) -> list[Node]:
    """Workers with what is free on them; ``whole``: with all that they have when everything is in order."""
    workers = session.execute(_WORKERS.where(which)).all()
    if not workers:
        return []
    teams = _sharing(session) if any(worker.fractions for worker in workers) else {}
    units: dict[int, list[Unit]] = defaultdict(list)
    theirs = _DEVICES.where(Device.worker_id == any_(cast([worker.id for worker in workers], ARRAY(BigInteger))))
    for number, worker, model, memory, capacity, used, quarantined_at in session.execute(theirs):
        usable = WHOLE_MILLI if whole else 0 if quarantined_at else capacity
        if usable:
            units[worker].append(Unit(number, model, memory, usable - used, usable, teams.get(number)))
    return [
        Node(
            id=number,
            name=name,
            cpu_model=cpu_model,
            cpus_milli=cpus,
            cpus_free_milli=cpus - cpus_used,
            memory_bytes=memory,
            memory_free_bytes=memory - memory_used,
            attempts_limit=attempts,
            attempts_free=attempts - attempts_used,
            units=tuple(units[number]),
            pool=pool,
            fractions=fractions,
            data=frozenset(data or ()),
        )
        for number, name, pool, cpu_model, cpus, cpus_used, memory, memory_used, attempts, attempts_used,
            fractions, data in workers
    ]  # fmt: skip


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
