"""Tables: jobs, the attempts at them, and who holds them for how long."""

from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, LargeBinary, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from stoker.jobs.base import Base, Now, Serial, Time
from stoker.jobs.lifecycle import AttemptState, Outcome, State
from stoker.jobs.tables_content import CodeSnapshot, Dataset
from stoker.jobs.tables_fleet import Device, Incarnation, Worker
from stoker.jobs.tables_people import Team, User

READY = text("state = 'queued' AND NOT held AND cancel_requested_at IS NULL")


def _one_of(column: str, values: type[State] | type[AttemptState] | type[Outcome]) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


class Job(Base):
    """What a user asked for."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(_one_of("state", State), name="state_known"),
        CheckConstraint("priority BETWEEN 0 AND 3", name="priority_known"),
        CheckConstraint("(finished_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'cancelled'))", name="finished"),
        CheckConstraint("(failure IS NOT NULL) = (state = 'failed')", name="failure"),
        Index(
            "ix_jobs_turn",  # what stoker.jobs.window reads
            "team_id",
            "owner_id",
            "priority",
            "shape",
            "own_order",
            "number",
            postgresql_where=READY,
        ),
        Index(
            "ix_jobs_lanes", "team_id", "owner_id", "priority", "queued_at", postgresql_where=READY
        ),  # stoker.jobs.lanes
        Index("ix_jobs_shapes", "team_id", "shape", postgresql_where=READY),
        Index("ix_jobs_live", "state", postgresql_where=text("state IN ('waiting', 'placed', 'running')")),
        Index("ix_jobs_name", "team_id", "name", "number"),
        Index("ix_jobs_finished", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
        Index("ix_jobs_started", "started_at", postgresql_where=text("started_at IS NOT NULL")),
        Index("ix_jobs_code", "team_id", "code_sha256", "number", postgresql_where=text("code_sha256 IS NOT NULL")),
        ForeignKeyConstraint(["team_id", "code_sha256"], [CodeSnapshot.team_id, CodeSnapshot.sha256]),
    )

    number: Mapped[Serial]
    owner_id: Mapped[int] = mapped_column(ForeignKey(User.id), index=True)
    team_id: Mapped[int] = mapped_column(ForeignKey(Team.id), index=True)
    name: Mapped[str]
    kind: Mapped[str]
    spec: Mapped[dict[str, Any]]
    tags: Mapped[list[str]]
    priority: Mapped[int]  # 0 low, 1 normal, 2 high, 3 urgent
    own_order: Mapped[int] = mapped_column(server_default="0")  # among the owner's: lowest first, then lowest number
    shape: Mapped[bytes] = mapped_column(LargeBinary)  # digest of what the planner looks at: equal shapes fit alike
    dataset_id: Mapped[int | None] = mapped_column(ForeignKey(Dataset.id), index=True)  # pinned at submit
    code_sha256: Mapped[bytes | None] = mapped_column(LargeBinary)  # of a script or notebook
    protocol: Mapped[int] = mapped_column(server_default="1")  # jobs.protocol.PROTOCOL of the code that accepted it
    state: Mapped[str]
    held: Mapped[bool] = mapped_column(server_default="false")
    not_before: Mapped[Time | None]  # back-off
    cancel_requested_at: Mapped[Time | None]
    cancel_requested_by: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(server_default="0")  # ordinal of the latest
    retries_used: Mapped[int] = mapped_column(server_default="0")  # of the job's own failures
    retried_at: Mapped[Time | None]  # by its user; what ran before counts for no limit
    losses_counted_from: Mapped[Now]  # lost attempts since then make a job suspect; a checkpoint or a retry moves it
    failure: Mapped[dict[str, Any] | None]  # class, evidence, fix
    latest_checkpoint_id: Mapped[int | None] = mapped_column(
        ForeignKey("checkpoints.id", use_alter=True, name="fk_jobs_latest_checkpoint_id_checkpoints"), index=True
    )
    pinned_machine: Mapped[str | None]  # device model and instruction set, from the first step on
    preempted_at: Mapped[Time | None]  # when it last had to make room
    created_at: Mapped[Now]
    queued_at: Mapped[Time | None]
    started_at: Mapped[Time | None]  # first claim
    finished_at: Mapped[Time | None]


class JobDataset(Base):
    """What the name of an uploaded data set stood for when a script or notebook that reads it was submitted."""

    __tablename__ = "job_datasets"

    job_number: Mapped[int] = mapped_column(ForeignKey(Job.number, ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey(Dataset.id), index=True)


class Dependency(Base):
    """A job starts only after its parent succeeded."""

    __tablename__ = "dependencies"
    __table_args__ = (CheckConstraint("job_number > parent_number", name="acyclic"),)

    job_number: Mapped[int] = mapped_column(ForeignKey(Job.number, ondelete="CASCADE"), primary_key=True)
    parent_number: Mapped[int] = mapped_column(ForeignKey(Job.number), primary_key=True, index=True)


class Attempt(Base):
    """One try at a job on one worker. While it is not ended it holds resources; ended, it can write nothing."""

    __tablename__ = "attempts"
    __table_args__ = (
        UniqueConstraint("job_number", "ordinal"),
        CheckConstraint(_one_of("state", AttemptState), name="state_known"),
        CheckConstraint(_one_of("outcome", Outcome), name="outcome_known"),
        CheckConstraint("(outcome IS NOT NULL) = (state = 'ended')", name="outcome_at_end"),
        CheckConstraint("(ended_at IS NOT NULL) = (state = 'ended')", name="ended_at_end"),
        Index("uq_attempts_live", "job_number", unique=True, postgresql_where=text("state <> 'ended'")),
        Index("ix_attempts_live_incarnation", "incarnation_id", postgresql_where=text("state <> 'ended'")),
        Index("ix_attempts_ended", "ended_at", postgresql_where=text("ended_at IS NOT NULL")),
        Index("ix_attempts_worker_ended", "worker_id", "ended_at"),  # what became of a worker's attempts lately
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)  # also the Celery task id
    job_number: Mapped[int] = mapped_column(ForeignKey(Job.number))
    ordinal: Mapped[int]  # 1, 2, … in its job
    worker_id: Mapped[int] = mapped_column(ForeignKey(Worker.id))
    incarnation_id: Mapped[UUID] = mapped_column(ForeignKey(Incarnation.id))
    state: Mapped[str]
    outcome: Mapped[str | None]
    device: Mapped[str]  # cpu | gpu
    cpus_milli: Mapped[int]  # held while not ended
    memory_bytes: Mapped[int]
    gpus_milli: Mapped[int] = mapped_column(server_default="0")  # of all its devices together
    resumed_from_id: Mapped[int | None] = mapped_column(ForeignKey("checkpoints.id", use_alter=True), index=True)
    resumed_step: Mapped[int] = mapped_column(server_default="0")  # rows of earlier attempts count up to here
    preempt_requested_at: Mapped[Time | None]
    preempt_reason: Mapped[str | None]
    preempt_for: Mapped[int | None] = mapped_column(ForeignKey(Job.number))  # the job that gets the room
    failure: Mapped[dict[str, Any] | None]
    progress: Mapped[dict[str, Any] | None]  # phase, epoch, epochs, step, steps, images_per_second
    progressed_at: Mapped[Time | None]
    ran_seconds: Mapped[float | None]  # without what it was frozen, as its supervisor measured
    peak_memory_bytes: Mapped[int | None]  # of all its processes together, as its supervisor measured
    peak_gpu_memory_bytes: Mapped[int | None]  # of its devices together
    cpu_seconds: Mapped[float | None]
    software: Mapped[dict[str, Any] | None]  # python, torch, packages, device, driver
    last_batch: Mapped[int] = mapped_column(server_default="0")  # number of the latest batch that was stored
    machine: Mapped[str | None]  # where it really ran
    placed_at: Mapped[Time]
    first_sent_at: Mapped[Time | None]  # the broker accepted the message
    last_sent_at: Mapped[Time | None]  # the last try to send it
    send_error: Mapped[str | None]  # why the last try failed
    claimed_at: Mapped[Time | None]
    first_step_at: Mapped[Time | None]
    ended_at: Mapped[Time | None]


class Allocation(Base):
    """A share of a device that an attempt holds while it is not ended."""

    __tablename__ = "allocations"
    __table_args__ = (CheckConstraint("milli > 0", name="milli_positive"),)

    attempt_id: Mapped[UUID] = mapped_column(ForeignKey(Attempt.id, ondelete="CASCADE"), primary_key=True)
    device_id: Mapped[int] = mapped_column(ForeignKey(Device.id), primary_key=True, index=True)
    milli: Mapped[int]


class Lease(Base):
    """Until when an incarnation, or one of its attempts, belongs to its worker. Closed ones have no row."""

    __tablename__ = "leases"

    holder_id: Mapped[UUID] = mapped_column(primary_key=True)  # the incarnation's own id, or the attempt's
    incarnation_id: Mapped[UUID] = mapped_column(ForeignKey(Incarnation.id), index=True)
    attempt_id: Mapped[UUID | None] = mapped_column(ForeignKey(Attempt.id), unique=True)
    expires_at: Mapped[Time] = mapped_column(index=True)


class Reservation(Base):
    """A place promised to a job that cannot start yet."""

    __tablename__ = "reservations"

    job_number: Mapped[int] = mapped_column(ForeignKey(Job.number, ondelete="CASCADE"), primary_key=True)
    worker_id: Mapped[int] = mapped_column(ForeignKey(Worker.id), index=True)
    device: Mapped[str]  # cpu | gpu
    devices: Mapped[list[int]]  # ids; empty on a CPU
    made_at: Mapped[Time]
    starts_at: Mapped[Time | None]  # the first start that was promised
    expires_at: Mapped[Time | None]  # what victims freed is held so long; none: while the job waits


class Event(Base):
    """One change of state, or something else that a user should be able to read later."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_job", "job_number", "id"),)

    id: Mapped[Serial]
    at: Mapped[Now]
    job_number: Mapped[int | None] = mapped_column(ForeignKey(Job.number, ondelete="CASCADE"))
    attempt_id: Mapped[UUID | None] = mapped_column(ForeignKey(Attempt.id))
    worker_id: Mapped[int | None] = mapped_column(ForeignKey(Worker.id))
    name: Mapped[str]  # a move's name, or a word from jobs.events
    actor: Mapped[str]
    reason: Mapped[str]
    details: Mapped[dict[str, Any] | None]
