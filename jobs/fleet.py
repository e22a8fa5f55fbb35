"""Workers: who is there, what each offers, which start of it is the live one."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from stoker.errors import Conflict, NotFound
from stoker.jobs.endings import end
from stoker.jobs.failures import Failure
from stoker.jobs.lifecycle import AttemptState, Outcome
from stoker.jobs.models import Attempt, Device, Incarnation, Lease, Pool, Worker
from stoker.jobs.moves import add_event, notify
from stoker.jobs.protocol import PROTOCOL

DISPATCH_LOCK = 0x53544F4B45  # the advisory lock under which capacity is promised
STOPPED = "the worker was stopped"  # begins the reason of a start that its own worker closed


@dataclass(frozen=True, slots=True)
class OfferedDevice:
    """A GPU that a worker offers."""

    uuid: str  # GPU-… or MIG-…
    position: int  # in PCI bus order
    model: str
    memory_bytes: int
    capacity_milli: int = 1000
    fault: str | None = None  # why it is out of use from the start


@dataclass(frozen=True, slots=True)
class Offer:
    """What a worker offers to jobs."""

    name: str
    cpus_milli: int
    memory_bytes: int
    attempts_limit: int
    cpu_model: str
    devices: tuple[OfferedDevice, ...] = ()
    pool: str = "default"
    notice: str = ""  # for whoever looks at the worker


@dataclass(frozen=True, slots=True)
class Identity:
    """One start of a worker; host, boot, pid and start time tell on its own host whether it is still there."""

    id: UUID
    host: str
    boot_id: str
    pid: int
    process_started: float  # seconds since boot
    version: str
    protocol: int = PROTOCOL


class NameTaken(Conflict):
    """Another live worker has this name."""

    code = "worker_name_taken"

    def __init__(self, name: str, holder: Identity) -> None:
        super().__init__(f"worker {name} is running already: pid {holder.pid} on {holder.host}")
        self.args = (name, holder)
        self.name, self.holder = name, holder


def lock_dispatch(session: Session) -> None:
    """Wait for the lock under which capacity is promised; held until this transaction ends."""
    session.execute(select(func.pg_advisory_xact_lock(DISPATCH_LOCK)))


def holder(session: Session, name: str) -> tuple[Identity, bool] | None:
    """The open incarnation of a name, and whether its lease still runs."""
    row = session.execute(
        select(Incarnation, Lease.expires_at > func.clock_timestamp())
        .join(Worker, Worker.id == Incarnation.worker_id)
        .outerjoin(Lease, Lease.holder_id == Incarnation.id)
        .where(Worker.name == name, Incarnation.closed_at.is_(None))
    ).one_or_none()
    if row is None:
        return None
    found, live = row
    identity = Identity(*(getattr(found, name) for name in Identity.__slots__))
    return identity, bool(live)


def register(
    session: Session, offer: Offer, identity: Identity, lease_seconds: float, *, dead: UUID | None = None
) -> None:
    """Make an incarnation the live one of its worker's name, with what it offers and a lease from now.

    An earlier incarnation whose lease has run out, or that the caller knows to be ``dead``, is closed, and its
    attempts with it; the caller has made sure that the devices are empty.

    Raises NameTaken while another incarnation of the name is live.
    """
    lock_dispatch(session)
    earlier = holder(session, offer.name)
    if earlier is not None:
        if earlier[1] and earlier[0].id != dead:
            raise NameTaken(offer.name, earlier[0])
        close_incarnation(session, earlier[0].id, "a new start of the worker took its place")
    worker = _offer(session, offer)
    session.execute(insert(Incarnation).values(worker_id=worker, **_columns(identity)))
    expires = func.clock_timestamp() + timedelta(seconds=lease_seconds)
    session.execute(insert(Lease).values(holder_id=identity.id, incarnation_id=identity.id, expires_at=expires))
    reason = f"pid {identity.pid} on {identity.host}, version {identity.version}, protocol {identity.protocol}"
    add_event(session, "worker_registered", actor="worker", reason=reason, worker=worker)
    notify(session)


def _columns(identity: Identity) -> dict[str, object]:
    return {name: getattr(identity, name) for name in Identity.__slots__}


def _offer(session: Session, offer: Offer) -> int:
    values = {
        "cpus_milli": offer.cpus_milli,
        "memory_bytes": offer.memory_bytes,
        "attempts_limit": offer.attempts_limit,
        "cpu_model": offer.cpu_model,
        "pool": offer.pool,
        "notice": offer.notice,
        "last_seen_at": func.now(),
        "suspect_until": None,
        "suspect_count": 0,
    }
    session.execute(upsert(Pool).values(name=offer.pool).on_conflict_do_nothing())
    statement = upsert(Worker).values(name=offer.name, **values)
    worker = session.scalars(
        statement.on_conflict_do_update(index_elements=["name"], set_=values).returning(Worker.id)
    ).one()
    offered = {device.uuid: device for device in offer.devices}
    session.execute(
        update(Device).where(Device.worker_id == worker, Device.uuid.not_in(list(offered))).values(capacity_milli=0)
    )
    for device in sorted(offer.devices, key=lambda device: device.uuid):
        columns = {name: getattr(device, name) for name in OfferedDevice.__slots__ if name not in {"uuid", "fault"}}
        if device.fault is not None:
            columns |= {"quarantined_at": func.now(), "quarantine_reason": device.fault[:500]}
        new = upsert(Device).values(worker_id=worker, uuid=device.uuid, **columns)
        session.execute(new.on_conflict_do_update(index_elements=["worker_id", "uuid"], set_=columns))
    return worker


def close_incarnation(session: Session, incarnation: UUID, reason: str) -> None:
    """Close an incarnation and end its attempts; does nothing when it is closed already."""
    open_attempts = (
        select(Attempt)
        .where(Attempt.incarnation_id == incarnation, Attempt.state != AttemptState.ENDED)
        .order_by(Attempt.id)
        .with_for_update()
    )
    for attempt in session.scalars(open_attempts, execution_options={"populate_existing": True}).all():
        lose(session, attempt, reason)
    session.execute(delete(Lease).where(Lease.holder_id == incarnation))
    closed = session.scalars(
        update(Incarnation)
        .where(Incarnation.id == incarnation, Incarnation.closed_at.is_(None))
        .values(closed_at=func.now(), closed_reason=reason)
        .returning(Incarnation.worker_id)
    ).one_or_none()
    if closed is not None:
        session.execute(update(Worker).where(Worker.id == closed).values(last_seen_at=func.now()))
        add_event(session, "worker_closed", actor="stoker", reason=reason, worker=closed)
        notify(session)


def stop_placing(session: Session, incarnation: UUID, seconds: float) -> None:
    """Let nothing more be placed on an incarnation that is about to stop; a new start of its worker undoes this."""
    lock_dispatch(session)
    worker = select(Incarnation.worker_id).where(Incarnation.id == incarnation, Incarnation.closed_at.is_(None))
    session.execute(
        update(Worker)
        .where(Worker.id == worker.scalar_subquery())
        .values(suspect_until=func.now() + timedelta(seconds=seconds))
    )


def record_shutdown(session: Session, incarnation: UUID, *, actor: str) -> None:
    """Note who has asked a worker to stop: of the worker, and of each job that makes way for it."""
    found = session.execute(
        select(Worker.id, Worker.name)
        .join(Incarnation, Incarnation.worker_id == Worker.id)
        .where(Incarnation.id == incarnation, Incarnation.closed_at.is_(None))
    ).one_or_none()
    if found is None:
        return
    worker, name = found
    add_event(session, "shutdown", actor=actor, reason="asked", worker=worker)
    live = select(Attempt).where(Attempt.incarnation_id == incarnation, Attempt.state != AttemptState.ENDED)
    for attempt in session.scalars(live.order_by(Attempt.id)):
        reason = f"worker {name} is to stop"
        add_event(
            session, "shutdown", actor=actor, reason=reason, job=attempt.job_number, attempt=attempt.id, worker=worker
        )


def lose(session: Session, attempt: Attempt, reason: str) -> None:
    """End a locked attempt whose worker is gone."""
    if attempt.state == AttemptState.PLACED:
        end(session, attempt, Outcome.NOT_CLAIMED, actor="stoker", reason=reason)
    else:
        end(session, attempt, Outcome.LOST, actor="stoker", reason=reason, failure=Failure("worker_lost", reason))


def set_draining(session: Session, name: str, draining: bool, *, actor: str) -> None:
    """Let a worker take nothing new, or take jobs again.

    Raises NotFound.
    """
    lock_dispatch(session)
    worker = session.scalars(
        update(Worker).where(Worker.name == name).values(draining=draining).returning(Worker.id)
    ).one_or_none()
    if worker is None:
        raise NotFound("worker", name, "see `stoker workers`")
    add_event(session, "drain" if draining else "resume", actor=actor, reason="asked", worker=worker)
    notify(session)


def quarantine(session: Session, worker_name: str, uuid: str, reason: str | None) -> None:
    """Take a device out of use, with the reason, or with None back into use."""
    lock_dispatch(session)
    worker = session.scalars(select(Worker.id).where(Worker.name == worker_name)).one()
    session.execute(
        update(Device)
        .where(Device.worker_id == worker, Device.uuid == uuid)
        .values(quarantined_at=None if reason is None else func.now(), quarantine_reason=reason)
    )
    name = "device_back" if reason is None else "device_quarantined"
    add_event(session, name, actor="worker", reason=reason or "self-test passed", worker=worker, details={"uuid": uuid})
    notify(session)


def quarantined(session: Session, worker_name: str) -> list[str]:
    """The UUIDs of a worker's devices that were taken out of use."""
    out = select(Device.uuid).join(Worker, Worker.id == Device.worker_id).where(Device.quarantined_at.is_not(None))
    return list(session.scalars(out.where(Worker.name == worker_name).order_by(Device.position)))


def database_clock(session: Session) -> float:
    """The database's own time, in seconds since 1970."""
    return float(session.scalar(text("SELECT extract(epoch FROM clock_timestamp())")) or 0)
