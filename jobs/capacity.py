"""The fleet and the queue as the planner sees them, read from the database."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import func, or_, select, text
from sqlalchemy.orm import Session

from stoker.jobs.fit import WHOLE, Demand, Node, Unit
from stoker.jobs.mix import MOVED, Mix, Shape, shape_of
from stoker.jobs.models import Device, Incarnation, Job, Lease, Worker
from stoker.jobs.placement import LeastLoss
from stoker.jobs.situation import Candidate

WINDOW = 64  # jobs of one team, priority and shape that one pass looks at
WHOLE_MILLI = 1000  # of a device
KNOWN_DAYS = 7  # a worker unseen for longer says nothing about what can run
MIX_DAYS, MIX_JOBS = 28, 5000  # of which the mix is learned; a sample of 100 already places within 0.1 points
MIX_SECONDS = 60.0  # how long a mix that was read is good


def demand_of(resources: dict[str, Any], machine: str | None = None) -> Demand:
    """What a job with these ``resources`` of its spec needs of one worker."""
    types = resources["gpu_type"]  # one model, or several that do: `V100M16|V100M32`
    return Demand(
        cpus_milli=round(resources["cpus"] * 1000),
        memory_bytes=resources["memory"],
        device=resources["device"],
        gpus=max(1, round(resources["gpus"])),
        gpu_memory_bytes=resources["gpu_memory"] or 0,
        gpu_types=tuple(name.strip() for name in types.split("|")) if types else (),
        machine=machine,
        gpu_milli=min(WHOLE, round(resources["gpus"] * WHOLE)),
    )


def queue_window(session: Session) -> list[Candidate]:
    """The queued jobs that a pass may place: of each team, priority, shape and pinned machine the first ``WINDOW``.

    Such jobs fit alike, so whole queue and window give the same placements as long as a pass places
    fewer than ``WINDOW`` of one kind; the next pass sees the rest.
    """
    place = func.row_number().over(
        partition_by=(Job.team_id, Job.priority, Job.shape, Job.pinned_machine), order_by=(Job.own_order, Job.number)
    )
    ready = (
        select(
            Job.number,
            Job.priority,
            Job.spec["resources"].label("resources"),
            Job.pinned_machine,
            Job.team_id,
            Job.owner_id,
            Job.own_order,
            func.extract("epoch", Job.queued_at).label("queued_at"),
            place.label("place"),
        )
        .where(Job.state == "queued", Job.held.is_(False), Job.cancel_requested_at.is_(None))
        .where(or_(Job.not_before.is_(None), Job.not_before <= func.now()))
        .subquery()
    )
    rows = session.execute(select(ready).where(ready.c.place <= WINDOW))
    return [
        Candidate(
            row.number,
            row.priority,
            demand_of(row.resources, row.pinned_machine),
            team=row.team_id,
            user=row.owner_id,
            own_order=row.own_order,
            queued_at=float(row.queued_at),
        )
        for row in rows
    ]


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
    statement = (
        select(Worker)
        .join(Incarnation, Incarnation.worker_id == Worker.id)
        .join(Lease, Lease.holder_id == Incarnation.id)
        .where(Incarnation.closed_at.is_(None), Lease.expires_at > func.clock_timestamp(), Worker.draining.is_(False))
        .where(or_(Worker.suspect_until.is_(None), Worker.suspect_until <= func.now()))
        .order_by(Worker.id)
    )
    return _nodes(session, session.scalars(statement, execution_options={"populate_existing": True}).all())


def known_fleet(session: Session) -> list[Node]:
    """The workers of the last seven days, drained and lost ones too, with devices that are missing or quarantined."""
    seen = Worker.last_seen_at > func.now() - text(f"interval '{KNOWN_DAYS} days'")
    opened = select(Incarnation.worker_id).where(Incarnation.closed_at.is_(None))
    workers = session.scalars(select(Worker).where(or_(seen, Worker.id.in_(opened)))).all()
    return _nodes(session, workers, whole=True)


def _nodes(session: Session, workers: Sequence[Worker], *, whole: bool = False) -> list[Node]:
    """Workers with what is free on them; ``whole``: with all that they have when everything is in order."""
    units: dict[int, list[Unit]] = defaultdict(list)
    if workers:
        devices = (
            select(Device).where(Device.worker_id.in_([worker.id for worker in workers])).order_by(Device.position)
        )
        for device in session.scalars(devices, execution_options={"populate_existing": True}):
            usable = WHOLE_MILLI if whole else 0 if device.quarantined_at else device.capacity_milli
            if usable:
                free = usable - device.used_milli
                units[device.worker_id].append(Unit(device.id, device.model, device.memory_bytes, free, usable))
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
        )
        for worker in workers
    ]
