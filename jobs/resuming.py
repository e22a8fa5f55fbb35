"""From which checkpoint a job goes on."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.orm import Session

from stoker.jobs.models import Checkpoint, Job


@dataclass(frozen=True, slots=True)
class ClaimedCheckpoint:
    """A checkpoint to go on from."""

    id: int
    blob_id: int
    sha256: str  # hexadecimal
    step: int
    bytes: int
    epoch: int = 0  # completed


def usable() -> ColumnElement[bool]:
    """The condition under which a checkpoint can be gone on from: kept, not damaged, on the course the job is on."""
    return and_(Checkpoint.blob_id.is_not(None), Checkpoint.damaged_at.is_(None), Checkpoint.superseded_at.is_(None))


def latest_checkpoint(session: Session, job: Job) -> ClaimedCheckpoint | None:
    """The job's latest checkpoint, or the newest before it that can be gone on from."""
    if job.latest_checkpoint_id is None:  # none yet, or the job starts from scratch
        return None
    found = session.scalars(
        select(Checkpoint)
        .where(Checkpoint.job_number == job.number, Checkpoint.id <= job.latest_checkpoint_id, usable())
        .order_by(Checkpoint.id.desc())
        .limit(1)
    ).one_or_none()
    if found is None or found.blob_id is None:
        return None
    return ClaimedCheckpoint(found.id, found.blob_id, found.sha256.hex(), found.step, found.bytes, found.epoch)
