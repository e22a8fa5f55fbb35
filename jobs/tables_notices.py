"""Tables: what is still to be told, and to whom."""

from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from stoker.jobs.base import Base, Now, Serial, Time
from stoker.jobs.tables_work import Job


class Notification(Base):
    """One recipient who is to be told of one end of a job: written with that end, and kept until it was told."""

    __tablename__ = "notifications"
    __table_args__ = (
        CheckConstraint("tries >= 0", name="tries_positive"),
        CheckConstraint("sent_at IS NULL OR failed_at IS NULL", name="one_end"),
        Index("ix_notifications_due", "due_at", postgresql_where=text("sent_at IS NULL AND failed_at IS NULL")),
    )

    id: Mapped[Serial]
    job_number: Mapped[int] = mapped_column(ForeignKey(Job.number, ondelete="CASCADE"), index=True)
    recipient: Mapped[str]  # as the spec has it
    document: Mapped[dict[str, Any]]  # the end: what jobs.outbox says of it
    tries: Mapped[int] = mapped_column(server_default="0")  # begun; each sets the time of the next
    due_at: Mapped[Now]
    sent_at: Mapped[Time | None]
    failed_at: Mapped[Time | None]  # given up
    problem: Mapped[str | None]  # of the latest try
    created_at: Mapped[Now]
