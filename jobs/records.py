"""What an attempt reports, written in fenced batches."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from stoker.jobs.models import Attempt, Checkpoint, Job, LogChunk, MetricSegment, Result, Sprite
from stoker.jobs.moves import SHOW, add_event, hold_attempt, notify
from stoker.jobs.resuming import ClaimedCheckpoint, latest_checkpoint, usable


@dataclass(frozen=True, slots=True)
class Batch:
    """Some of what an attempt reported since the last batch."""

    number: int = 0  # 1, 2, … within the attempt: one that came before is not stored again; 0: never compared
    progress: dict[str, Any] | None = None  # phase, epoch, epochs, step, steps, images_per_second
    metrics: dict[str, tuple[Sequence[int], Sequence[float]]] = field(default_factory=dict)  # steps strictly rising
    log: str = ""
    notes: tuple[str, ...] = ()


def write_batch(session: Session, attempt_id: UUID, incarnation_id: UUID, batch: Batch) -> None:
    """Store a batch, once: a writer whose commit went unanswered may send it again.

    Raises AttemptClosed, and then nothing was written.
    """
    attempt = hold_attempt(session, attempt_id, incarnation_id)
    if batch.number:
        if batch.number <= attempt.last_batch:
            return
        attempt.last_batch = batch.number
    if batch.progress is not None:
        attempt.progress, attempt.progressed_at = batch.progress, func.now()
    for key, (steps, values) in batch.metrics.items():
        session.add(_segment(attempt, key, steps, values))
    if batch.log:
        session.add(LogChunk(job_number=attempt.job_number, attempt_id=attempt.id, text=batch.log))
    for note in batch.notes:
        add_event(session, "note", actor="worker", reason=note, job=attempt.job_number, attempt=attempt.id)
    session.flush()
    notify(session, SHOW, attempt.job_number)


def _segment(attempt: Attempt, key: str, steps: Sequence[int], values: Sequence[float]) -> MetricSegment:
    return MetricSegment(
        job_number=attempt.job_number,
        attempt_id=attempt.id,
        key=key,
        points=len(steps),
        first_step=steps[0],
        last_step=steps[-1],
        steps=struct.pack(f"<{len(steps)}q", *steps),
        values=struct.pack(f"<{len(values)}d", *values),
    )


def unpack_segment(segment: MetricSegment) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The steps and values of a segment."""
    return (
        struct.unpack(f"<{segment.points}q", segment.steps),
        struct.unpack(f"<{segment.points}d", segment.values),
    )


def cuts(session: Session, number: int) -> dict[UUID, int | None]:
    """For each attempt of a job, the last step whose rows still count; None: all of them.

    An attempt that went on from the checkpoint at step s supersedes what earlier attempts wrote after s. One
    that was never claimed wrote nothing and supersedes nothing.
    """
    rows = session.execute(
        select(Attempt.id, Attempt.resumed_step, Attempt.claimed_at)
        .where(Attempt.job_number == number)
        .order_by(Attempt.ordinal.desc())
    )
    found: dict[UUID, int | None] = {}
    least: int | None = None
    for attempt_id, resumed_step, claimed_at in rows:
        found[attempt_id] = least
        if claimed_at is not None:
            least = resumed_step if least is None else min(least, resumed_step)
    return found


def add_checkpoint(  # noqa: PLR0913 - a checkpoint has these facets
    session: Session,
    attempt_id: UUID,
    incarnation_id: UUID,
    *,
    step: int,
    epoch: int,
    sha256: bytes,
    size: int,
    blob_id: int,
    metrics: dict[str, float],
) -> int:
    """Add a checkpoint whose bytes are all stored, make it the latest, and let go of those not kept any more.

    The same one again, after a commit that went unanswered, is found. Raises AttemptClosed. Returns its id.
    """
    attempt = hold_attempt(session, attempt_id, incarnation_id)
    again = select(Checkpoint.id).where(
        Checkpoint.attempt_id == attempt_id, Checkpoint.step == step, Checkpoint.sha256 == sha256
    )
    if (known := session.scalars(again.limit(1)).one_or_none()) is not None:
        return known
    checkpoint = Checkpoint(
        job_number=attempt.job_number,
        attempt_id=attempt.id,
        step=step,
        epoch=epoch,
        sha256=sha256,
        bytes=size,
        blob_id=blob_id,
        metrics=metrics,
    )
    session.add(checkpoint)
    session.flush()
    job = session.scalars(
        update(Job)
        .where(Job.number == attempt.job_number)
        .values(latest_checkpoint_id=checkpoint.id, losses_counted_from=func.now())
        .returning(Job)
    ).one()
    _let_go(session, job)
    notify(session, SHOW, job.number)
    return checkpoint.id


def best_checkpoints(session: Session, number: int, count: int) -> list[int]:
    """The ids of a job's best checkpoints: highest validation accuracy first, none without a validation split."""
    accuracy = Checkpoint.metrics["validation_accuracy"].as_float()
    statement = (
        select(Checkpoint.id)
        .where(Checkpoint.job_number == number, usable(), accuracy.is_not(None))
        .order_by(accuracy.desc(), Checkpoint.id)
        .limit(count)
    )
    return list(session.scalars(statement))


def _let_go(session: Session, job: Job) -> None:
    rules = job.spec["checkpoint"]
    latest = (
        select(Checkpoint.id)
        .where(Checkpoint.job_number == job.number, usable())
        .order_by(Checkpoint.id.desc())
        .limit(rules["keep_latest"])
    )
    kept = {*session.scalars(latest), *best_checkpoints(session, job.number, rules["keep_best"])}
    named = select(Result.checkpoint_id).where(Result.job_number == job.number, Result.checkpoint_id.is_not(None))
    session.execute(
        update(Checkpoint)
        .where(Checkpoint.job_number == job.number, Checkpoint.blob_id.is_not(None))
        .where(Checkpoint.id.not_in(kept), Checkpoint.id.not_in(named))
        .values(blob_id=None)  # its bytes are collected later
    )


def report_damaged(
    session: Session, attempt_id: UUID, incarnation_id: UUID, checkpoint_id: int, evidence: str
) -> ClaimedCheckpoint | None:
    """Mark a checkpoint as damaged and name the one before it, if there is one, as that to go on from.

    Raises AttemptClosed.
    """
    attempt = hold_attempt(session, attempt_id, incarnation_id)
    job = session.get_one(Job, attempt.job_number)
    session.execute(update(Checkpoint).where(Checkpoint.id == checkpoint_id).values(damaged_at=func.now()))
    before = latest_checkpoint(session, job)
    attempt.resumed_from_id = before.id if before else None
    attempt.resumed_step = before.step if before else 0
    session.execute(
        update(Job).where(Job.number == job.number).values(latest_checkpoint_id=before.id if before else None)
    )
    reason = f"{evidence}; going on from {f'step {before.step}' if before else 'the start'}"
    add_event(session, "checkpoint_damaged", actor="worker", reason=reason, job=job.number, attempt=attempt_id)
    return before


def find_sprite(session: Session, team_id: int, sha256: bytes) -> int | None:
    """The strip of test images with this digest, if the team has it already."""
    return session.scalar(select(Sprite.id).where(Sprite.team_id == team_id, Sprite.sha256 == sha256))


def add_sprite(
    session: Session, team_id: int, *, sha256: bytes, blob_id: int, count: int, height: int, width: int, channels: int
) -> int:
    """Add a strip of test images (count, height, width, channels; uint8), or find that it is there. Returns its id."""
    new = (
        upsert(Sprite)
        .values(
            team_id=team_id, sha256=sha256, blob_id=blob_id, count=count, height=height, width=width, channels=channels
        )
        .on_conflict_do_nothing(index_elements=["team_id", "sha256"])
        .returning(Sprite.id)
    )
    made = session.scalar(new)
    return (
        made
        if made is not None
        else session.scalars(select(Sprite.id).where(Sprite.team_id == team_id, Sprite.sha256 == sha256)).one()
    )
