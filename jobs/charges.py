"""What is charged for an attempt when it ends; while it runs the planner counts it itself."""

import math
from typing import Any

from sqlalchemy import ColumnElement, Double, cast, func, literal, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import InstrumentedAttribute, Session

from stoker.jobs.models import Attempt, Job, Usage
from stoker.jobs.policy import DEFAULT_POLICY

_HALF_LIFE = DEFAULT_POLICY.half_life_seconds


def half(seconds: ColumnElement[Any]) -> ColumnElement[float]:
    """What is left after so many seconds of what was used."""
    return func.power(0.5, func.greatest(seconds, 0) / _HALF_LIFE)


def seconds_since(moment: ColumnElement[Any] | InstrumentedAttribute[Any]) -> ColumnElement[Any]:
    """Seconds from a time of the database to the start of this transaction."""
    return cast(func.extract("epoch", func.now() - moment), Double)


def charge(session: Session, attempt: Attempt, job: Job) -> None:
    """Add what an attempt used, from its claim to now, to what its owner has used; ``stoker.jobs.shares.cost``."""
    if attempt.claimed_at is None:
        return
    rate = max(attempt.gpus_milli / 1000, attempt.cpus_milli / 1000 / DEFAULT_POLICY.cpus_per_gpu)
    ran = select(seconds_since(Attempt.claimed_at)).where(Attempt.id == attempt.id).scalar_subquery()
    used = literal(rate * _HALF_LIFE / math.log(2)) * (1 - half(ran))
    new = upsert(Usage).values(team_id=job.team_id, user_id=job.owner_id, device_seconds=used, counted_at=func.now())
    before = Usage.device_seconds * half(seconds_since(Usage.counted_at))
    session.execute(
        new.on_conflict_do_update(
            index_elements=["team_id", "user_id"],
            set_={"device_seconds": before + new.excluded.device_seconds, "counted_at": func.now()},
        )
    )
