"""Tables: what users were told of when jobs start and end, so that it can be compared with what came."""

from sqlalchemy import CheckConstraint, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from stoker.jobs.base import Base, Now, Serial, Time
from stoker.jobs.tables_work import Job


class Estimate(Base):
    """What was told of one job at one moment."""

    __tablename__ = "estimates"
    __table_args__ = (CheckConstraint("start_low_at <= start_at", name="range_ordered"),)

    id: Mapped[Serial]
    job_number: Mapped[int] = mapped_column(ForeignKey(Job.number, ondelete="CASCADE"), index=True)
    made_at: Mapped[Now] = mapped_column(index=True)
    position: Mapped[int]
    start_at: Mapped[Time]
    raw_seconds: Mapped[float]  # from made_at to the start, before it was corrected by the past
    start_low_at: Mapped[Time]
    start_high_at: Mapped[Time | None]
    end_at: Mapped[Time | None]
