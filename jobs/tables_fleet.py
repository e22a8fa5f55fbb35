"""Tables: workers, what they offer, and who holds it."""

from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from stoker.jobs.base import Base, Now, Serial, Time
from stoker.jobs.tables_people import Pool


class Worker(Base):
    """A worker by its stable name: what it offers, and how much of that is promised to live attempts."""

    __tablename__ = "workers"
    __table_args__ = (
        CheckConstraint("cpus_used_milli BETWEEN 0 AND cpus_milli", name="cpus_within"),
        CheckConstraint("memory_used_bytes BETWEEN 0 AND memory_bytes", name="memory_within"),
        CheckConstraint("attempts_used BETWEEN 0 AND attempts_limit", name="attempts_within"),
    )

    id: Mapped[Serial]
    name: Mapped[str] = mapped_column(unique=True)
    pool: Mapped[str] = mapped_column(ForeignKey(Pool.name), server_default="default", index=True)
    cpus_milli: Mapped[int]
    cpus_used_milli: Mapped[int] = mapped_column(server_default="0")
    memory_bytes: Mapped[int]
    memory_used_bytes: Mapped[int] = mapped_column(server_default="0")
    attempts_limit: Mapped[int]
    attempts_used: Mapped[int] = mapped_column(server_default="0")
    cpu_model: Mapped[str]  # part of what "the same machine" means for an exact resume
    notice: Mapped[str] = mapped_column(server_default="")  # for whoever looks at it; empty: nothing to say
    draining: Mapped[bool] = mapped_column(server_default="false")
    suspect_until: Mapped[Time | None]  # let an attempt go unclaimed, or is to stop: no placements before this
    suspect_count: Mapped[int] = mapped_column(server_default="0")  # in a row; doubles the pause
    last_seen_at: Mapped[Now]
    created_at: Mapped[Now]


class Incarnation(Base):
    """One start of a worker. At most one of a name is open; a closed one can write nothing more."""

    __tablename__ = "incarnations"
    __table_args__ = (
        Index("uq_incarnations_open", "worker_id", unique=True, postgresql_where=text("closed_at IS NULL")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    worker_id: Mapped[int] = mapped_column(ForeignKey(Worker.id), index=True)
    host: Mapped[str]
    boot_id: Mapped[str]  # with pid and start time: whether the process is still there, seen from its own host
    pid: Mapped[int]
    process_started: Mapped[float]  # seconds since boot
    version: Mapped[str]
    protocol: Mapped[int] = mapped_column(server_default="1")  # jobs.protocol.PROTOCOL of its code
    started_at: Mapped[Now]
    closed_at: Mapped[Time | None]
    closed_reason: Mapped[str | None]


class Device(Base):
    """A GPU of a worker, in thousandths."""

    __tablename__ = "devices"
    __table_args__ = (
        UniqueConstraint("worker_id", "uuid"),
        CheckConstraint("used_milli BETWEEN 0 AND capacity_milli", name="used_within"),
    )

    id: Mapped[Serial]
    worker_id: Mapped[int] = mapped_column(ForeignKey(Worker.id))
    uuid: Mapped[str]  # GPU-… or MIG-…
    position: Mapped[int]  # in PCI bus order, as users see it
    model: Mapped[str]
    memory_bytes: Mapped[int]
    capacity_milli: Mapped[int]  # 0 while the device is missing
    used_milli: Mapped[int] = mapped_column(server_default="0")
    quarantined_at: Mapped[Time | None]
    quarantine_reason: Mapped[str | None]


class WorkerData(Base):
    """A data set that a worker has used, and so most likely still has in its cache."""

    __tablename__ = "worker_data"

    worker_id: Mapped[int] = mapped_column(ForeignKey(Worker.id), primary_key=True)
    data: Mapped[str] = mapped_column(primary_key=True)  # a built-in's name, or # and the id of a data set
    used_at: Mapped[Now]
