"""Attempts as their worker sees them: claim, first step, finish."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from stoker.errors import AttemptClosed, MoveRefused
from stoker.jobs.endings import end
from stoker.jobs.failures import Failure
from stoker.jobs.lifecycle import START, AttemptState, Outcome, State
from stoker.jobs.models import (
    Allocation,
    Attempt,
    Blob,
    Checkpoint,
    Dataset,
    Device,
    Job,
    Lease,
    Predictions,
    Result,
    Team,
    User,
    Worker,
)
from stoker.jobs.moves import add_event, apply, hold_attempt
from stoker.jobs.resuming import ClaimedCheckpoint, latest_checkpoint, usable
from stoker.jobs.spec import JobSpec, parse_spec


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A placed attempt, as its message names it."""

    attempt_id: UUID
    job_number: int
    ordinal: int
    name: str
    owner: str
    team: str
    worker: str


@dataclass(frozen=True, slots=True)
class ClaimedDataset:
    """The data that a job was pinned to when it was submitted; a built-in has only a name."""

    name: str
    sha256: str | None = None  # hexadecimal
    blob_id: int | None = None
    bytes: int = 0
    format: str | None = None  # zip | tar


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a worker needs to know of an attempt that is now its own."""

    attempt_id: UUID
    job_number: int
    ordinal: int
    name: str
    owner: str
    team: str
    team_id: int
    spec: JobSpec
    device: str  # cpu | gpu
    device_uuids: tuple[str, ...]
    dataset: ClaimedDataset
    checkpoint: ClaimedCheckpoint | None
    time_left_seconds: float | None  # of time_limit, less what earlier attempts ran
    pinned_machine: str | None


@dataclass(frozen=True, slots=True)
class PredictionsRecord:
    """Every test image's label, prediction and probability, packed as in the table."""

    count: int
    packed: bytes
    classes: tuple[str, ...]
    sprite_id: int | None


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended, as its supervisor saw it."""

    outcome: Outcome
    reason: str = ""
    ran_seconds: float | None = None  # from the claim on, without what it was frozen
    failure: Failure | None = None
    result: dict[str, Any] | None = None
    predictions: PredictionsRecord | None = None


def claim(session: Session, attempt_id: UUID, incarnation_id: UUID, lease_seconds: float) -> Claimed:
    """Take an attempt that was placed on this incarnation, with a lease from now.

    Raises AttemptClosed: the message was late, doubled or foreign, or the incarnation is not live any more.
    """
    attempt = _placed(session, attempt_id, incarnation_id)
    live = select(func.count()).where(Lease.holder_id == incarnation_id, Lease.expires_at > func.clock_timestamp())
    if not session.scalar(live):
        raise AttemptClosed(attempt_id)
    expires = func.clock_timestamp() + timedelta(seconds=lease_seconds)
    session.execute(
        insert(Lease).values(
            holder_id=attempt_id, attempt_id=attempt_id, incarnation_id=incarnation_id, expires_at=expires
        )
    )
    try:
        job = apply(
            session,
            START,
            attempt.job_number,
            actor="worker",
            reason="claimed",
            attempt=attempt_id,
            started_at=func.coalesce(Job.started_at, func.now()),
        )
    except MoveRefused:  # a cancel came first and will end the attempt
        raise AttemptClosed(attempt_id) from None
    checkpoint = latest_checkpoint(session, job)
    attempt.state, attempt.claimed_at = AttemptState.RUNNING, func.now()
    attempt.resumed_from_id = checkpoint.id if checkpoint else None
    attempt.resumed_step = checkpoint.step if checkpoint else 0
    session.flush()
    session.execute(
        update(Worker)
        .where(Worker.id == attempt.worker_id, Worker.suspect_count > 0)
        .values(suspect_count=0, suspect_until=None)
    )
    return _describe(session, attempt, job, checkpoint)


def _placed(session: Session, attempt_id: UUID, incarnation_id: UUID) -> Attempt:
    statement = (
        select(Attempt)
        .where(Attempt.id == attempt_id, Attempt.incarnation_id == incarnation_id)
        .where(Attempt.state == AttemptState.PLACED)
        .with_for_update()
    )
    attempt = session.scalars(statement, execution_options={"populate_existing": True}).one_or_none()
    if attempt is None:
        raise AttemptClosed(attempt_id)
    return attempt


def _describe(session: Session, attempt: Attempt, job: Job, checkpoint: ClaimedCheckpoint | None) -> Claimed:
    owner, team, dataset, size = session.execute(
        select(User.name, Team.name, Dataset, Blob.bytes)
        .select_from(User)
        .join(Team, Team.id == job.team_id)
        .outerjoin(Dataset, Dataset.id == job.dataset_id)
        .outerjoin(Blob, Blob.id == Dataset.blob_id)
        .where(User.id == job.owner_id)
    ).one()
    spec = parse_spec(job.spec)
    uuids = session.scalars(
        select(Device.uuid)
        .join(Allocation, Allocation.device_id == Device.id)
        .where(Allocation.attempt_id == attempt.id)
        .order_by(Device.position)
    ).all()
    data = ClaimedDataset(spec.train.dataset)
    if dataset is not None:
        data = ClaimedDataset(dataset.name, dataset.sha256.hex(), dataset.blob_id, size, dataset.format)
    return Claimed(
        attempt_id=attempt.id,
        job_number=job.number,
        ordinal=attempt.ordinal,
        name=job.name,
        owner=owner,
        team=team,
        team_id=job.team_id,
        spec=spec,
        device=attempt.device,
        device_uuids=tuple(uuids),
        dataset=data,
        checkpoint=checkpoint,
        time_left_seconds=_time_left(session, job, spec),
        pinned_machine=job.pinned_machine,
    )


def _time_left(session: Session, job: Job, spec: JobSpec) -> float | None:
    """What is left of the time limit; earlier attempts count since the user's last retry, without frozen time."""
    if spec.time_limit is None:
        return None
    if job.attempts <= 1:
        return spec.time_limit
    seen = func.extract("epoch", Attempt.progressed_at - Attempt.claimed_at)  # of one whose supervisor died
    ran = select(func.coalesce(func.sum(func.coalesce(Attempt.ran_seconds, seen)), 0)).where(
        Attempt.job_number == job.number, Attempt.state == AttemptState.ENDED
    )
    if job.retried_at is not None:
        ran = ran.where(Attempt.claimed_at >= job.retried_at)
    return max(0.0, spec.time_limit - float(session.scalar(ran) or 0))


def first_step(session: Session, attempt_id: UUID, incarnation_id: UUID, machine: str) -> None:
    """Note when and on what kind of machine an attempt made its first step; the job stays on that kind.

    Raises AttemptClosed.
    """
    attempt = hold_attempt(session, attempt_id, incarnation_id)
    attempt.first_step_at, attempt.machine = func.now(), machine
    session.flush()
    job = session.get_one(Job, attempt.job_number)
    if job.pinned_machine is None:
        session.execute(update(Job).where(Job.number == job.number).values(pinned_machine=machine))
    elif job.pinned_machine != machine:
        reason = f"resumed inexactly: on {machine} instead of {job.pinned_machine}"
        add_event(session, "resumed_inexactly", actor="worker", reason=reason, job=job.number, attempt=attempt_id)


def finish(session: Session, attempt_id: UUID, incarnation_id: UUID, ending: Ending) -> State:
    """End an attempt and store its result, in one transaction.

    Raises AttemptClosed: the job was taken away, and nothing was written.
    """
    attempt = hold_attempt(session, attempt_id, incarnation_id)
    attempt.ran_seconds = ending.ran_seconds
    if ending.outcome is Outcome.SUCCEEDED and ending.result is not None:
        _add_result(session, attempt, ending)
    return end(
        session,
        attempt,
        ending.outcome,
        actor="worker",
        reason=ending.reason or (ending.failure.klass if ending.failure else ending.outcome.value),
        failure=ending.failure,
    )


def _add_result(session: Session, attempt: Attempt, ending: Ending) -> None:
    result = ending.result or {}
    latest = select(Checkpoint.id).where(Checkpoint.job_number == attempt.job_number, usable())
    session.add(
        Result(
            job_number=attempt.job_number,
            attempt_id=attempt.id,
            accuracy=result.get("accuracy"),
            document=result,
            checkpoint_id=session.scalar(latest.order_by(Checkpoint.id.desc()).limit(1)),
        )
    )
    if (made := ending.predictions) is not None:
        session.add(
            Predictions(
                job_number=attempt.job_number,
                attempt_id=attempt.id,
                count=made.count,
                packed=made.packed,
                classes=list(made.classes),
                sprite_id=made.sprite_id,
            )
        )
