"""How an attempt ends, and what becomes of its job: one transaction, whoever ends it."""

from datetime import timedelta
from typing import Any

from sqlalchemy import and_, delete, func, or_, select, update
from sqlalchemy.orm import Session

from stoker.jobs import dependencies
from stoker.jobs.charges import charge
from stoker.jobs.failures import CLASSES, Cost, Failure, decide
from stoker.jobs.lifecycle import CANCEL, FAIL, FINAL, REQUEUE, SUCCEED, AttemptState, Outcome, State
from stoker.jobs.models import Allocation, Attempt, Device, Job, Lease, Worker
from stoker.jobs.moves import apply, lock_job, notify


def end(
    session: Session, attempt: Attempt, outcome: Outcome, *, actor: str, reason: str, failure: Failure | None = None
) -> State:
    """End an attempt that this transaction has locked, move its job, and give back what it held.

    A job whose cancellation was asked for is cancelled unless it succeeded; a failed or lost one is queued
    again or fails for good, as ``failures.decide`` says. Locks in the one order: attempt, lease, job, worker,
    devices. Returns the job's new state.
    """
    attempt.state, attempt.outcome, attempt.ended_at = AttemptState.ENDED, outcome, func.now()
    attempt.failure = failure.document() if failure else None
    session.flush()
    session.execute(delete(Lease).where(Lease.attempt_id == attempt.id))
    state = _move_job(session, attempt, outcome, actor=actor, reason=reason, failure=failure)
    _give_back(session, attempt)
    charge(session, attempt, session.get_one(Job, attempt.job_number))
    notify(session)
    return state


def _move_job(
    session: Session, attempt: Attempt, outcome: Outcome, *, actor: str, reason: str, failure: Failure | None
) -> State:
    job = lock_job(session, attempt.job_number)
    move, values = REQUEUE, dict[str, Any]()
    if outcome is Outcome.SUCCEEDED:
        move = SUCCEED
    elif outcome is Outcome.CANCELLED or job.cancel_requested_at is not None:
        move = CANCEL
    elif failure is not None:
        verdict = decide(failure, **_history(session, job))
        if verdict.again:
            values["not_before"] = func.now() + timedelta(seconds=verdict.delay_seconds)
            values["retries_used"] = job.retries_used + verdict.uses_retry
        else:
            move, values = FAIL, {"failure": verdict.failure.document()}
    elif outcome is Outcome.PREEMPTED:
        values["preempted_at"] = func.now()  # the planner leaves it alone for a while
    apply(session, move, job.number, actor=actor, reason=reason, attempt=attempt.id, **values)
    if move.target in FINAL:
        dependencies.settle(session, job.number, move.target)
    return move.target


def _history(session: Session, job: Job) -> dict[str, int]:
    free = [name for name, (cost, _) in CLASSES.items() if cost is Cost.FREE]
    by_proof = and_(Attempt.failure["class"].astext.in_(free), Attempt.failure["unproven"].astext.is_(None))
    lost = and_(
        Attempt.job_number == job.number,
        Attempt.ended_at >= job.losses_counted_from,
        or_(Attempt.outcome == Outcome.LOST, by_proof),
    )
    losses, workers = session.execute(
        select(func.count(), func.count(func.distinct(Attempt.worker_id))).where(lost)
    ).one()
    limits = {"retries_used": job.retries_used, "max_retries": job.spec["max_retries"]}
    return limits | {"losses": losses, "workers_lost": workers}


def _give_back(session: Session, attempt: Attempt) -> None:
    session.execute(
        update(Worker)
        .where(Worker.id == attempt.worker_id)
        .values(
            cpus_used_milli=Worker.cpus_used_milli - attempt.cpus_milli,
            memory_used_bytes=Worker.memory_used_bytes - attempt.memory_bytes,
            attempts_used=Worker.attempts_used - 1,
        )
    )
    held = session.execute(
        select(Allocation.device_id, Allocation.milli)
        .where(Allocation.attempt_id == attempt.id)
        .order_by(Allocation.device_id)
    ).all()
    for device, milli in held:
        session.execute(update(Device).where(Device.id == device).values(used_milli=Device.used_milli - milli))
