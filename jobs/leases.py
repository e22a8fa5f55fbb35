"""Leases: renewed by their worker, and taken away when they have run out."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, or_, select, text, update
from sqlalchemy.orm import Session

from stoker.jobs.attempts import Outgoing
from stoker.jobs.endings import end
from stoker.jobs.fleet import close_incarnation, lock_dispatch, lose
from stoker.jobs.lifecycle import AttemptState, Outcome
from stoker.jobs.models import Attempt, Job, Lease, Team, User, Worker
from stoker.jobs.moves import add_event

SUSPECT_SECONDS = 30.0
LONGEST_SUSPECT_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Renewed:
    """What is still ours after a renewal, and what is asked of it."""

    alive: bool  # False: the incarnation was closed; kill everything and register anew
    requests: dict[UUID, str | None]  # attempt -> "cancel", "preempt" or nothing; one that is missing was closed


def renew(session: Session, incarnation: UUID, lease_seconds: float) -> Renewed:
    """Renew the lease of an incarnation and those of its attempts, by the database's clock."""
    mine = (
        select(Lease.holder_id)
        .where(Lease.incarnation_id == incarnation)
        .order_by(Lease.holder_id)
        .with_for_update()
        .cte("mine")
    )
    renewed = (
        update(Lease)
        .where(Lease.holder_id.in_(select(mine.c.holder_id)))
        .values(expires_at=func.clock_timestamp() + timedelta(seconds=lease_seconds))
        .returning(Lease.attempt_id)
    )
    holders = list(session.scalars(renewed))
    return Renewed(None in holders, requests(session, [holder for holder in holders if holder is not None]))


def requests(session: Session, attempts: list[UUID]) -> dict[UUID, str | None]:
    """What is asked of each of these attempts, as far as they are still running."""
    if not attempts:
        return {}
    rows = session.execute(
        select(Attempt.id, Job.cancel_requested_at, Attempt.preempt_requested_at)
        .join(Job, Job.number == Attempt.job_number)
        .where(Attempt.id.in_(attempts), Attempt.state == AttemptState.RUNNING)
    )
    return {row[0]: "cancel" if row[1] else "preempt" if row[2] else None for row in rows}


def expired_attempts(session: Session) -> list[UUID]:
    """The attempts whose lease has run out, as it seems before they are locked."""
    expired = select(Lease.holder_id).where(Lease.attempt_id.is_not(None), Lease.expires_at < func.clock_timestamp())
    return list(session.scalars(expired.order_by(Lease.holder_id)))


def numbers_of(session: Session, attempts: Collection[UUID]) -> dict[UUID, int]:
    """The jobs of these attempts."""
    if not attempts:
        return {}
    rows = session.execute(select(Attempt.id, Attempt.job_number).where(Attempt.id.in_(attempts)))
    return {row.id: row.job_number for row in rows}


def take_back(session: Session, attempt_id: UUID) -> None:
    """End an attempt whose lease has run out, unless it was renewed or somebody else is at it.

    One attempt a transaction: ending one locks its worker, and attempts come before workers.
    """
    attempt = _locked(session, attempt_id, AttemptState.RUNNING)
    if attempt is not None and _still_expired(session, attempt_id):
        lose(session, attempt, "the lease ran out: its worker was not heard of")


def expired_incarnations(session: Session) -> list[UUID]:
    """The incarnations whose lease has run out, as it seems before they are locked."""
    expired = select(Lease.holder_id).where(Lease.attempt_id.is_(None), Lease.expires_at < func.clock_timestamp())
    return list(session.scalars(expired.order_by(Lease.holder_id)))


def close_expired(session: Session, incarnation: UUID) -> None:
    """Close an incarnation whose lease has run out, unless it was renewed or somebody else is at it."""
    lock_dispatch(session)  # nothing is placed there meanwhile
    attempts = select(Attempt.id).where(Attempt.incarnation_id == incarnation, Attempt.state != AttemptState.ENDED)
    session.execute(attempts.order_by(Attempt.id).with_for_update())
    renewed = select(Lease.holder_id).where(Lease.incarnation_id == incarnation)  # in the order of ``renew``
    session.execute(renewed.order_by(Lease.holder_id).with_for_update())
    if _still_expired(session, incarnation):
        close_incarnation(session, incarnation, "the worker's lease ran out")


def _locked(session: Session, attempt_id: UUID, state: AttemptState) -> Attempt | None:
    """Lock an attempt in this state; None when it left the state, or another transaction holds it."""
    statement = select(Attempt).where(Attempt.id == attempt_id, Attempt.state == state)
    found = session.scalars(statement.with_for_update(skip_locked=True), execution_options={"populate_existing": True})
    return found.one_or_none()


def _still_expired(session: Session, holder: UUID) -> bool:
    """Whether a lease, read again under its lock, has run out; False while another transaction holds it."""
    statement = select(Lease.expires_at < func.clock_timestamp()).where(Lease.holder_id == holder)
    return bool(session.scalar(statement.with_for_update(skip_locked=True)))


def unclaimed_attempts(session: Session, claim_seconds: float) -> list[UUID]:
    """The attempts that no worker claimed in time after their message was accepted."""
    late = Attempt.first_sent_at < func.now() - timedelta(seconds=claim_seconds)
    return list(
        session.scalars(select(Attempt.id).where(Attempt.state == AttemptState.PLACED, late).order_by(Attempt.id))
    )


def return_unclaimed(session: Session, attempt_id: UUID, claim_seconds: float) -> None:
    """Queue a job again whose attempt no worker claimed in time.

    The worker is suspect: nothing is placed there for 30 s, doubling to 10 min until its next claim.
    """
    attempt = _locked(session, attempt_id, AttemptState.PLACED)
    if attempt is not None:
        end(session, attempt, Outcome.NOT_CLAIMED, actor="stoker", reason=f"not claimed in {claim_seconds:g} s")
        _suspect(session, attempt.worker_id)


def _suspect(session: Session, worker_id: int) -> None:
    worker = session.get_one(Worker, worker_id, populate_existing=True)
    if session.scalar(select(Worker.suspect_until > func.now()).where(Worker.id == worker_id)):
        return  # one incident may leave many attempts unclaimed
    pause = min(SUSPECT_SECONDS * 2**worker.suspect_count, LONGEST_SUSPECT_SECONDS)
    session.execute(
        update(Worker)
        .where(Worker.id == worker_id)
        .values(suspect_until=func.now() + timedelta(seconds=pause), suspect_count=Worker.suspect_count + 1)
    )
    reason = f"let an attempt go unclaimed; nothing is placed there for {pause:g} s"
    add_event(session, "worker_suspect", actor="stoker", reason=reason, worker=worker_id)


def due_messages(session: Session, resend_seconds: float) -> list[Outgoing]:
    """The placed attempts whose message should be sent again now; each is given to one caller only."""
    due = (
        select(Attempt.id)
        .where(Attempt.state == AttemptState.PLACED)
        .where(
            or_(Attempt.last_sent_at.is_(None), Attempt.last_sent_at < func.now() - timedelta(seconds=resend_seconds))
        )
        .with_for_update(skip_locked=True)
    )
    ids = list(session.scalars(due))
    if ids:
        session.execute(update(Attempt).where(Attempt.id.in_(ids)).values(last_sent_at=func.now()))
    return list(outgoing(session, ids))


def outgoing(session: Session, attempts: list[UUID]) -> Iterator[Outgoing]:
    """Describe attempts as their messages name them."""
    if not attempts:
        return
    rows = session.execute(
        select(Attempt.id, Job.number, Attempt.ordinal, Job.name, User.name, Team.name, Worker.name)
        .join(Job, Job.number == Attempt.job_number)
        .join(User, User.id == Job.owner_id)
        .join(Team, Team.id == Job.team_id)
        .join(Worker, Worker.id == Attempt.worker_id)
        .where(Attempt.id.in_(attempts))
    )
    for row in rows:
        yield Outgoing(*row)


def record_send(session: Session, attempt: UUID, error: str | None) -> None:
    """Note whether the broker took an attempt's message; the time to be claimed counts from the first that it took."""
    session.execute(
        update(Attempt)
        .where(Attempt.id == attempt, Attempt.state == AttemptState.PLACED)
        .values(
            send_error=error,
            first_sent_at=Attempt.first_sent_at if error else func.coalesce(Attempt.first_sent_at, func.now()),
        )
    )


BROKER_DOWN_SQL = "EXISTS (SELECT FROM attempts WHERE state = 'placed' AND send_error IS NOT NULL)"


def broker_down(session: Session) -> bool:
    """Whether a placed attempt waits because no send of its message succeeds."""
    return bool(session.scalar(text(f"SELECT {BROKER_DOWN_SQL}")))
