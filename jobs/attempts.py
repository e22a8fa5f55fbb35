"""Attempts as their worker sees them: claim, first step, finish."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from stoker.errors import AttemptClosed, MoveRefused
from stoker.jobs.claims import Claimed, describe
from stoker.jobs.endings import end
from stoker.jobs.failures import Failure
from stoker.jobs.lifecycle import START, AttemptState, Outcome, State
from stoker.jobs.models import Attempt, Checkpoint, Job, Lease, Output, Predictions, Result, Worker, WorkerData
from stoker.jobs.moves import add_event, apply, hold_attempt
from stoker.jobs.resuming import latest_checkpoint, usable
from stoker.jobs.vault import Vault
from stoker.jobs.window import shape_on

NO_VAULT = Vault(None)


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
class PredictionsRecord:
    """Every test image's label, prediction and probability, packed as in the table."""

    count: int
    packed: bytes
    classes: tuple[str, ...]
    sprite_id: int | None


@dataclass(frozen=True, slots=True)
class OutputRecord:
    """A file that was left in the output folder, once its bytes are stored."""

    path: str  # relative, checked by stoker.jobs.spec_fields.inner_path
    blob_id: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What an attempt really used, as its supervisor measured; None: not known."""

    peak_memory_bytes: int | None = None
    peak_gpu_memory_bytes: int | None = None
    cpu_seconds: float | None = None
    software: dict[str, Any] | None = None  # python, torch, packages {name: version}, device, driver


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended, as its supervisor saw it."""

    outcome: Outcome
    reason: str = ""
    ran_seconds: float | None = None  # from the claim on, without what it was frozen
    failure: Failure | None = None
    result: dict[str, Any] | None = None
    predictions: PredictionsRecord | None = None
    outputs: tuple[OutputRecord, ...] = ()
    usage: Usage | None = None


def claim(
    session: Session, attempt_id: UUID, incarnation_id: UUID, lease_seconds: float, vault: Vault = NO_VAULT
) -> Claimed:
    """Take an attempt that was placed on this incarnation, with a lease from now; ``vault`` opens its secrets.

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
    return describe(session, attempt, job, checkpoint, vault)


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


def first_step(session: Session, attempt_id: UUID, incarnation_id: UUID, machine: str) -> None:
    """Note when and on what kind of machine an attempt made its first step; the job stays on that kind.

    Raises AttemptClosed.
    """
    attempt = hold_attempt(session, attempt_id, incarnation_id)
    attempt.first_step_at, attempt.machine = func.now(), machine
    session.flush()
    job = session.get_one(Job, attempt.job_number)
    _note_data(session, attempt, job)
    if job.pinned_machine is None:
        pinned = shape_on(job.shape, machine)
        session.execute(update(Job).where(Job.number == job.number).values(pinned_machine=machine, shape=pinned))
    elif job.pinned_machine != machine:
        reason = f"resumed inexactly: on {machine} instead of {job.pinned_machine}"
        add_event(session, "resumed_inexactly", actor="worker", reason=reason, job=job.number, attempt=attempt_id)


def _note_data(session: Session, attempt: Attempt, job: Job) -> None:
    """The worker has the job's data at hand now; later jobs that read it start there sooner."""
    data = f"#{job.dataset_id}" if job.dataset_id is not None else job.spec.get("train", {}).get("dataset")
    if data is not None:
        seen = upsert(WorkerData).values(worker_id=attempt.worker_id, data=data, used_at=func.now())
        session.execute(seen.on_conflict_do_update(index_elements=["worker_id", "data"], set_={"used_at": func.now()}))


def finish(session: Session, attempt_id: UUID, incarnation_id: UUID, ending: Ending) -> State:
    """End an attempt and store its result, and what it left and used whatever the outcome, in one transaction.

    Raises AttemptClosed: the job was taken away, and nothing was written.
    """
    attempt = hold_attempt(session, attempt_id, incarnation_id)
    attempt.ran_seconds = ending.ran_seconds
    if ending.outcome is Outcome.SUCCEEDED and ending.result is not None:
        _add_result(session, attempt, ending)
    _add_outputs(session, attempt, ending.outputs)
    if ending.usage is not None:
        attempt.peak_memory_bytes = ending.usage.peak_memory_bytes
        attempt.peak_gpu_memory_bytes = ending.usage.peak_gpu_memory_bytes
        attempt.cpu_seconds = ending.usage.cpu_seconds
        attempt.software = ending.usage.software
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
            accuracy=_share(result.get("accuracy")),
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


def _share(accuracy: object) -> float | None:
    """An accuracy as it can be compared between jobs; what a script calls by that name may be anything."""
    return float(accuracy) if isinstance(accuracy, int | float) and 0 <= accuracy <= 1 else None


def _add_outputs(session: Session, attempt: Attempt, outputs: tuple[OutputRecord, ...]) -> None:
    if not outputs:
        return
    rows = [
        {
            "job_number": attempt.job_number,
            "path": output.path,
            "blob_id": output.blob_id,
            "bytes": output.bytes,
            "attempt_id": attempt.id,
        }
        for output in outputs
    ]
    added = upsert(Output)
    latest = {name: added.excluded[name] for name in ("blob_id", "bytes", "attempt_id")}
    session.execute(added.on_conflict_do_update(index_elements=["job_number", "path"], set_=latest), rows)
