"""One pass of the dispatcher: read the queue and the fleet, plan, write the placements. The caller commits."""

import time
import uuid
from dataclasses import dataclass

from sqlalchemy import func, insert, literal, select, text, update
from sqlalchemy.orm import Session

from stoker.errors import MoveRefused
from stoker.jobs.attempts import Outgoing
from stoker.jobs.capacity import demand_of, live_fleet, queue_window
from stoker.jobs.fit import WHOLE
from stoker.jobs.fleet import DISPATCH_LOCK, database_clock
from stoker.jobs.leases import broker_down, outgoing
from stoker.jobs.lifecycle import PLACE, AttemptState, State
from stoker.jobs.models import Allocation, Attempt, Device, Incarnation, Job, Worker
from stoker.jobs.moves import apply
from stoker.jobs.placement import LeastLoss, Rule
from stoker.jobs.planner import plan, why_not
from stoker.jobs.reasons import BACKING_OFF, BROKER_DOWN, HELD, WAITS_FOR_PARENTS, Reason
from stoker.jobs.situation import Placement, Situation

_WISH_AND_TRY = text(f"SELECT nextval('dispatch_wishes'), pg_try_advisory_xact_lock({DISPATCH_LOCK})")


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass did."""

    sent: tuple[Outgoing, ...]  # placed now: their messages are to be sent after the commit
    again: int | None  # the wish of this pass; a later one asks for another. None: another process holds the lock


def last_wish(session: Session) -> int:
    """The latest wish for a pass."""
    return int(session.scalar(text("SELECT last_value FROM dispatch_wishes")) or 0)


def dispatch(session: Session, rule: Rule | None = None) -> Pass:
    """Place what can start now, unless another process is doing so; without a rule as if no job was ever seen."""
    # The wish comes before the try: a holder that looks for wishes after its commit cannot miss it.
    seen, held = session.execute(_WISH_AND_TRY).one()
    if not held:
        return Pass((), None)
    queue = queue_window(session)
    if not queue or broker_down(session):
        return Pass((), seen)
    made = plan(Situation(database_clock(session), queue, live_fleet(session)), rule or LeastLoss())
    placed = [attempt for placement in made.placements if (attempt := _place(session, placement)) is not None]
    return Pass(tuple(outgoing(session, placed)), seen)


def _place(session: Session, placement: Placement) -> uuid.UUID | None:
    """Write one placement; None when the job was cancelled or held since the queue was read."""
    attempt = new_id()
    try:
        job = apply(
            session,
            PLACE,
            placement.number,
            actor="dispatcher",
            reason=f"on {placement.spot.device}",
            attempts=Job.attempts + 1,
        )
    except MoveRefused:
        return None
    incarnation = select(Incarnation.id).where(
        Incarnation.worker_id == placement.spot.node, Incarnation.closed_at.is_(None)
    )
    session.execute(
        insert(Attempt).values(
            id=attempt,
            job_number=job.number,
            ordinal=job.attempts,
            worker_id=placement.spot.node,
            incarnation_id=incarnation.scalar_subquery(),
            state=AttemptState.PLACED,
            device=placement.spot.device,
            cpus_milli=placement.demand.cpus_milli,
            memory_bytes=placement.demand.memory_bytes,
            placed_at=func.now(),
            last_sent_at=func.now(),
        )
    )
    _take(session, placement, attempt)
    return attempt


def _take(session: Session, placement: Placement, attempt: uuid.UUID) -> None:
    """Promise the capacity; the tables' own checks refuse more than there is."""
    session.execute(
        update(Worker)
        .where(Worker.id == placement.spot.node)
        .values(
            cpus_used_milli=Worker.cpus_used_milli + placement.demand.cpus_milli,
            memory_used_bytes=Worker.memory_used_bytes + placement.demand.memory_bytes,
            attempts_used=Worker.attempts_used + 1,
        )
    )
    share = placement.demand.gpu_milli
    for unit in sorted(placement.spot.units):
        taken = Device.capacity_milli if share >= WHOLE else literal(share)
        milli = session.scalars(
            update(Device).where(Device.id == unit).values(used_milli=Device.used_milli + taken).returning(taken)
        ).one()
        session.execute(insert(Allocation).values(attempt_id=attempt, device_id=unit, milli=milli))


def new_id() -> uuid.UUID:
    """A UUID of version 7 (RFC 9562): 48 bits of milliseconds, then chance; in the order of making, on one clock."""
    stamp = int(time.time() * 1000) & (2**48 - 1)
    chance = uuid.uuid4().int & (2**74 - 1)
    return uuid.UUID(int=stamp << 80 | 7 << 76 | (chance >> 62) << 64 | 2 << 62 | chance & (2**62 - 1))


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a job waits, and how many take their turn before it."""

    code: str
    sentence: str
    position: int | None


def explain(session: Session, job: Job) -> Explanation | None:
    """Say what a waiting or queued job waits for; None for any other."""
    if job.state == State.WAITING:
        return Explanation(WAITS_FOR_PARENTS.code, WAITS_FOR_PARENTS.sentence, None)
    if job.state != State.QUEUED:
        return None
    ahead = select(func.count()).where(
        Job.state == State.QUEUED,
        (Job.priority > job.priority) | ((Job.priority == job.priority) & (Job.number < job.number)),
    )
    reason = _reason(session, job)
    return Explanation(reason.code, reason.sentence, 1 + int(session.scalar(ahead) or 0))


def _reason(session: Session, job: Job) -> Reason:
    if job.held:
        return HELD
    if session.scalar(select(Job.not_before > func.now()).where(Job.number == job.number)):
        return BACKING_OFF
    if broker_down(session):
        return BROKER_DOWN
    return why_not(demand_of(job.spec["resources"], job.pinned_machine), live_fleet(session))
