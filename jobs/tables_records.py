"""Tables: what attempts report: metrics, logs, checkpoints, results, predictions."""

from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.orm import Mapped, mapped_column

from stoker.jobs.base import Base, Digest, Now, Serial, Time
from stoker.jobs.tables_content import Blob
from stoker.jobs.tables_people import Team
from stoker.jobs.tables_work import Attempt, Job


class MetricSegment(Base):
    """Points of one metric, in the order of their steps, packed: 8 bytes of step and 8 of value each."""

    __tablename__ = "metric_segments"
    __table_args__ = (
        Index("ix_metric_segments_job", "job_number", "key", "first_step"),
        CheckConstraint("points > 0 AND octet_length(steps) = points * 8", name="steps_length"),
        CheckConstraint("octet_length(values) = points * 8", name="values_length"),
        CheckConstraint("first_step <= last_step", name="steps_ordered"),
    )

    id: Mapped[Serial]
    job_number: Mapped[int] = mapped_column(ForeignKey(Job.number, ondelete="CASCADE"))
    attempt_id: Mapped[UUID] = mapped_column(ForeignKey(Attempt.id), index=True)
    key: Mapped[str]
    points: Mapped[int]
    first_step: Mapped[int]
    last_step: Mapped[int]
    steps: Mapped[bytes] = mapped_column(LargeBinary)  # little-endian int64
    values: Mapped[bytes] = mapped_column(LargeBinary)  # little-endian float64


class LogChunk(Base):
    """Some of what an attempt printed."""

    __tablename__ = "log_chunks"
    __table_args__ = (Index("ix_log_chunks_job", "job_number", "id"),)

    id: Mapped[Serial]
    job_number: Mapped[int] = mapped_column(ForeignKey(Job.number, ondelete="CASCADE"))
    attempt_id: Mapped[UUID] = mapped_column(ForeignKey(Attempt.id), index=True)
    at: Mapped[Now]
    text: Mapped[str]


class Checkpoint(Base):
    """A state of training that can be resumed; its row exists only when all its bytes are stored and verified."""

    __tablename__ = "checkpoints"
    __table_args__ = (Index("ix_checkpoints_job", "job_number", "step"),)

    id: Mapped[Serial]
    job_number: Mapped[int] = mapped_column(ForeignKey(Job.number, ondelete="CASCADE"))
    attempt_id: Mapped[UUID] = mapped_column(ForeignKey(Attempt.id), index=True)
    step: Mapped[int]
    epoch: Mapped[int]
    sha256: Mapped[Digest]
    bytes: Mapped[int]
    blob_id: Mapped[int | None] = mapped_column(ForeignKey(Blob.id), index=True)  # none once it is not kept any more
    metrics: Mapped[dict[str, Any]]
    damaged_at: Mapped[Time | None]
    superseded_at: Mapped[Time | None]  # a retry went on from an earlier one, or from scratch
    created_at: Mapped[Now]


class Sprite(Base):
    """The test images of a data set as one strip of equal tiles, raw: (count, height, width, channels) of uint8."""

    __tablename__ = "sprites"
    __table_args__ = (UniqueConstraint("team_id", "sha256"),)

    id: Mapped[Serial]
    team_id: Mapped[int] = mapped_column(ForeignKey(Team.id))
    sha256: Mapped[Digest]  # of the strip
    blob_id: Mapped[int] = mapped_column(ForeignKey(Blob.id), index=True)
    count: Mapped[int]
    height: Mapped[int]
    width: Mapped[int]
    channels: Mapped[int]


class Result(Base):
    """What a succeeded job is worth. One per job, whatever happened on the way."""

    __tablename__ = "results"
    __table_args__ = (CheckConstraint("accuracy BETWEEN 0 AND 1", name="accuracy_range"),)

    job_number: Mapped[int] = mapped_column(ForeignKey(Job.number, ondelete="CASCADE"), primary_key=True)
    attempt_id: Mapped[UUID] = mapped_column(ForeignKey(Attempt.id), unique=True)
    accuracy: Mapped[float | None]
    document: Mapped[dict[str, Any]] = mapped_column(JSON)  # not jsonb: classes stay in their order
    checkpoint_id: Mapped[int | None] = mapped_column(ForeignKey(Checkpoint.id), index=True)
    created_at: Mapped[Now]


class Predictions(Base):
    """Every test image's label, prediction and probability, in test order: 8 bytes each (u16, u16, f32)."""

    __tablename__ = "predictions"
    __table_args__ = (CheckConstraint("octet_length(packed) = count * 8", name="packed_length"),)

    job_number: Mapped[int] = mapped_column(ForeignKey(Job.number, ondelete="CASCADE"), primary_key=True)
    attempt_id: Mapped[UUID] = mapped_column(ForeignKey(Attempt.id), unique=True)
    count: Mapped[int]
    packed: Mapped[bytes] = mapped_column(LargeBinary)
    classes: Mapped[list[str]]
    sprite_id: Mapped[int | None] = mapped_column(ForeignKey(Sprite.id), index=True)


class Output(Base):
    """A file that a script or notebook left in its output folder; the same path again stands for the latest one."""

    __tablename__ = "outputs"
    __table_args__ = (CheckConstraint("bytes >= 0", name="bytes_positive"),)

    job_number: Mapped[int] = mapped_column(ForeignKey(Job.number, ondelete="CASCADE"), primary_key=True)
    path: Mapped[str] = mapped_column(primary_key=True)
    blob_id: Mapped[int] = mapped_column(ForeignKey(Blob.id), index=True)
    bytes: Mapped[int]
    attempt_id: Mapped[UUID] = mapped_column(ForeignKey(Attempt.id), index=True)
