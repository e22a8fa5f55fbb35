"""The one place where a job changes its state, and the fence around what attempts write."""

from typing import Any
from uuid import UUID

from sqlalchemy import func, or_, select, text, update
from sqlalchemy.orm import Session

from stoker.errors import AlreadyFinal, AttemptClosed, JobNotFound, MoveRefused, OtherVersion
from stoker.jobs.lifecycle import FINAL, FORBIDDEN_BY_CANCEL, PLACE, RELEASE, AttemptState, Move, State
from stoker.jobs.models import Attempt, Event, Job
from stoker.jobs.outbox import leave_notices
from stoker.jobs.protocol import PROTOCOL

WAKE = "stoker_wake"  # NOTIFY channels: the dispatcher should look,
REQUEST = "stoker_request"  # a worker should look at the requests for this attempt,
SHOW = "stoker_job"  # something to show about this job has changed
_NOTIFY = text("SELECT pg_notify(:channel, :payload)")
_AS_RETURNED = {"synchronize_session": False, "populate_existing": True}  # else the update is evaluated here, too


def notify(session: Session, channel: str = WAKE, payload: object = "") -> None:
    """Wake whoever listens, when this transaction commits."""
    session.execute(_NOTIFY, {"channel": channel, "payload": str(payload)})


def add_event(
    session: Session,
    name: str,
    *,
    actor: str,
    reason: str,
    job: int | None = None,
    attempt: UUID | None = None,
    worker: int | None = None,
    details: dict[str, Any] | None = None,
) -> None:
    """Record something that a user should be able to read later."""
    session.add(
        Event(
            name=name, actor=actor, reason=reason, job_number=job, attempt_id=attempt, worker_id=worker, details=details
        )
    )


def apply(
    session: Session, move: Move, number: int, *, actor: str, reason: str, attempt: UUID | None = None, **values: Any
) -> Job:
    """Apply one move, if the job is in a state where that move may start.

    A caller that acts for an attempt has locked it with ``hold_attempt`` in this transaction.

    Raises JobNotFound or MoveRefused (OtherVersion: newer code has accepted the job); the row is then untouched.
    """
    statement = update(Job).where(Job.number == number, Job.state.in_(move.sources))
    if move is not RELEASE:  # which implies nothing, and is what the end of an older job owes to those that wait for it
        statement = statement.where(Job.protocol <= PROTOCOL)
    if move in FORBIDDEN_BY_CANCEL:
        statement = statement.where(Job.cancel_requested_at.is_(None))
    if move is PLACE:  # the plan was made from what was committed before
        statement = statement.where(Job.held.is_(False), or_(Job.not_before.is_(None), Job.not_before <= func.now()))
    statement = statement.values(_stamps(move) | {"state": move.target} | values).returning(Job)
    job = session.scalars(statement, execution_options=_AS_RETURNED).one_or_none()
    if job is None:
        raise _refusal(session, move, number)
    add_event(session, move.name, actor=actor, reason=reason, job=number, attempt=attempt)
    if move.target in FINAL:
        leave_notices(session, job, reason)
    notify(session, SHOW, number)
    return job


def _stamps(move: Move) -> dict[str, Any]:
    if move.target in FINAL:
        return {"finished_at": func.now()}
    if move.target is State.QUEUED:
        return {"queued_at": func.now(), "finished_at": None, "failure": None}
    if move.target is State.WAITING:
        return {"finished_at": None, "failure": None}
    return {}


def _refusal(session: Session, move: Move, number: int) -> Exception:
    row = session.execute(select(Job.state, Job.protocol).where(Job.number == number)).one_or_none()
    if row is None:
        return JobNotFound(number)
    state, protocol = row
    if protocol > PROTOCOL:
        return OtherVersion(number, move.name, state)
    return (AlreadyFinal if state in FINAL else MoveRefused)(number, move.name, state)


def hold_attempt(session: Session, attempt: UUID, incarnation: UUID) -> Attempt:
    """Lock an attempt that is still running here, so that this transaction may write for it, or close it.

    One writer at a time: two that shared the lock could not both go on to update the row.

    Raises AttemptClosed: the caller has lost the job and must stop its trainer.
    """
    statement = (
        select(Attempt)
        .where(Attempt.id == attempt, Attempt.incarnation_id == incarnation, Attempt.state == AttemptState.RUNNING)
        .with_for_update(key_share=True)  # rows that refer to the attempt may be added meanwhile
    )
    held = session.scalars(statement, execution_options={"populate_existing": True}).one_or_none()
    if held is None:
        raise AttemptClosed(attempt)
    return held


def lock_job(session: Session, number: int) -> Job:
    """Lock a job's row and read it afresh; a caller that acts for an attempt has locked that first.

    Raises JobNotFound.
    """
    statement = select(Job).where(Job.number == number).with_for_update()
    job = session.scalars(statement, execution_options={"populate_existing": True}).one_or_none()
    if job is None:
        raise JobNotFound(number)
    return job


def lock_live(session: Session, number: int) -> tuple[Attempt | None, Job]:
    """Lock a job and, before it, its attempt that has not ended, if there is one.

    Raises JobNotFound.
    """
    while True:
        with session.begin_nested() as step:
            live = select(Attempt).where(Attempt.job_number == number, Attempt.state != AttemptState.ENDED)
            found = session.scalars(live.with_for_update(), execution_options={"populate_existing": True})
            attempt, job = found.one_or_none(), lock_job(session, number)
            if attempt is not None or job.state not in {State.PLACED, State.RUNNING}:
                return attempt, job
            step.rollback()  # placed while we waited for the job: let go of it, and lock in the one order
