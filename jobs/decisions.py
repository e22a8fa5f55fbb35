"""What a plan decided, written down. The caller holds the dispatch lock, and commits."""

import time
import uuid
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime

from sqlalchemy import BigInteger, bindparam, delete, func, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from stoker.errors import MoveRefused
from stoker.jobs.fit import WHOLE
from stoker.jobs.lifecycle import PLACE, AttemptState, State
from stoker.jobs.models import Attempt, Job
from stoker.jobs.models import Reservation as Reserved
from stoker.jobs.moves import REQUEST, SHOW, add_event, apply, notify
from stoker.jobs.protocol import PROTOCOL
from stoker.jobs.shares import counted
from stoker.jobs.situation import Placement, Preemption, Reservation

ACTOR = "dispatcher"
_LAST = 253_370_764_800.0  # the year 9999, in seconds since 1970: dates end there


def make_room(session: Session, preemptions: Iterable[Preemption]) -> set[int]:
    """Ask victims to leave, all of those that one job needs or none; returns the jobs for which none were asked.

    Comes before any other write of the pass: attempts are locked before jobs and workers, and one that somebody else
    holds, who may be ending it, is not waited for.
    """
    wanted: dict[int, list[Preemption]] = defaultdict(list)
    for preemption in preemptions:
        wanted[preemption.beneficiary].append(preemption)
    return {number for number, victims in wanted.items() if not _ask(session, number, victims)}


def _ask(session: Session, beneficiary: int, victims: list[Preemption]) -> bool:
    waits = select(Job.number).where(
        Job.number == beneficiary,
        Job.state == State.QUEUED,
        Job.held.is_(False),
        Job.cancel_requested_at.is_(None),
        Job.protocol <= PROTOCOL,  # or nobody here could place it
    )
    if session.scalar(waits.with_for_update(key_share=True, skip_locked=True)) is None:
        return False
    sentences = {victim.number: victim.sentence for victim in victims}
    running = (
        select(Attempt)
        .where(Attempt.job_number.in_(sentences), Attempt.state == AttemptState.RUNNING)
        .where(Attempt.preempt_requested_at.is_(None))
        .order_by(Attempt.id)
        .with_for_update(skip_locked=True)
    )
    found = session.scalars(running, execution_options={"populate_existing": True}).all()
    if len(found) < len(sentences):
        return False
    for attempt in found:
        reason = sentences[attempt.job_number]
        attempt.preempt_requested_at, attempt.preempt_reason = func.now(), reason
        attempt.preempt_for = beneficiary
        details = {"for": beneficiary}
        add_event(
            session, "preempt_requested", actor=ACTOR, reason=reason, job=attempt.job_number, attempt=attempt.id,
            details=details,
        )  # fmt: skip
        session.flush()
        notify(session, REQUEST, attempt.id)
        notify(session, SHOW, attempt.job_number)
    return True


# As text, since a pass does little else when it places many: the expressions of these take longer than PostgreSQL does.
_ATTEMPT = text("""
INSERT INTO attempts (id, job_number, ordinal, worker_id, incarnation_id, state, device, cpus_milli, memory_bytes,
    gpus_milli, placed_at, last_sent_at)
VALUES (:attempt, :job, :ordinal, :worker,
    (SELECT id FROM incarnations WHERE worker_id = :worker AND closed_at IS NULL),
    'placed', :device, :cpus, :memory, :gpus, now(), now())
""")
_WORKER = text("""
UPDATE workers SET cpus_used_milli = cpus_used_milli + :cpus, memory_used_bytes = memory_used_bytes + :memory,
    attempts_used = attempts_used + 1
WHERE id = :worker
""")
_DEVICE = text("""
WITH taken AS (
    UPDATE devices SET used_milli = used_milli + coalesce(:share, capacity_milli) WHERE id = :unit
    RETURNING id, coalesce(:share, capacity_milli) AS milli
)
INSERT INTO allocations (attempt_id, device_id, milli) SELECT :attempt, id, milli FROM taken
""").bindparams(bindparam("share", type_=BigInteger))


def place(session: Session, placement: Placement) -> uuid.UUID | None:
    """Write one placement; None when the job was cancelled or held since the queue was read.

    The tables' own checks refuse more than there is.
    """
    attempt, spot, demand = new_id(), placement.spot, placement.demand
    try:
        job = apply(
            session, PLACE, placement.number, actor=ACTOR, reason=f"on {spot.device}", attempts=Job.attempts + 1
        )
    except MoveRefused:
        return None
    taken = {
        "attempt": attempt,
        "job": job.number,
        "ordinal": job.attempts,
        "worker": spot.node,
        "device": spot.device,
        "cpus": demand.cpus_milli,
        "memory": demand.memory_bytes,
        "gpus": counted(demand, "gpu") if spot.device == "gpu" else 0,
    }
    session.flush()  # the event
    session.execute(_ATTEMPT, taken)
    session.execute(_WORKER, taken)
    if spot.units:
        share = None if demand.gpu_milli >= WHOLE else demand.gpu_milli
        session.execute(_DEVICE, [{"attempt": attempt, "unit": unit, "share": share} for unit in sorted(spot.units)])
    return attempt


def keep_reservations(session: Session, before: Iterable[Reservation], after: Iterable[Reservation]) -> None:
    """Store what is promised from now on."""
    old = {reservation.number: reservation for reservation in before}
    new = {reservation.number: reservation for reservation in after}
    if gone := sorted(old.keys() - new.keys()):
        session.execute(delete(Reserved).where(Reserved.job_number.in_(gone)))
    for number, made in sorted(new.items()):
        if made != old.get(number):
            values = {
                "worker_id": made.spot.node,
                "device": made.spot.device,
                "devices": list(made.spot.units),
                "made_at": _moment(made.made_at),
                "starts_at": None if made.starts_at is None else _moment(made.starts_at),
                "expires_at": None if made.expires_at is None else _moment(made.expires_at),
            }
            row = upsert(Reserved).values(job_number=number, **values)
            session.execute(row.on_conflict_do_update(index_elements=["job_number"], set_=values))


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(min(seconds, _LAST), UTC)


def new_id() -> uuid.UUID:
    """A UUID of version 7 (RFC 9562): 48 bits of milliseconds, then chance; in the order of making, on one clock."""
    stamp = int(time.time() * 1000) & (2**48 - 1)
    chance = uuid.uuid4().int & (2**74 - 1)
    return uuid.UUID(int=stamp << 80 | 7 << 76 | (chance >> 62) << 64 | 2 << 62 | chance & (2**62 - 1))
