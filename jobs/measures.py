"""What jobs asked for, against what they used."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, literal, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from stoker.jobs.lifecycle import AttemptState, State
from stoker.jobs.models import Attempt, Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """The most that any attempt at a job used, and the sums over all; None: not measured."""

    job: int
    memory_bytes: int | None
    gpu_memory_bytes: int | None
    cpu_seconds: float | None
    ran_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """A job's demand and use."""

    asked: dict[str, Any]  # the spec's resources
    used: Used | None  # none before the first attempt has ended
    software: dict[str, Any] | None  # of the latest attempt that told: python, torch, packages, device, driver
    before: Used | None  # of the latest earlier job of the team with the same code and command that succeeded


def measures(session: Session, job: Job) -> Measures:
    """What is known of a job's use, and of that of the one before."""
    told = select(Attempt.software).where(Attempt.job_number == job.number, Attempt.software.is_not(None))
    earlier = _earlier(session, job)
    return Measures(
        asked=job.spec["resources"],
        used=_used(session, job.number),
        software=session.scalars(told.order_by(Attempt.ordinal.desc()).limit(1)).first(),
        before=_used(session, earlier) if earlier is not None else None,
    )


def _used(session: Session, number: int) -> Used | None:
    sums = (
        func.count(),
        func.max(Attempt.peak_memory_bytes),
        func.max(Attempt.peak_gpu_memory_bytes),
        func.sum(Attempt.cpu_seconds),
        func.sum(Attempt.ran_seconds),
    )
    ended = select(*sums).where(Attempt.job_number == number, Attempt.state == AttemptState.ENDED)
    count, memory, gpu_memory, cpu_seconds, ran_seconds = session.execute(ended).one()
    if not count:
        return None
    return Used(
        job=number,
        memory_bytes=memory,
        gpu_memory_bytes=gpu_memory,
        cpu_seconds=cpu_seconds,
        ran_seconds=ran_seconds,
    )


def _earlier(session: Session, job: Job) -> int | None:
    """The latest job before this one that ran the same and succeeded; found by its code, which has an index."""
    if job.code_sha256 is None:
        return None
    same = (
        select(Job.number)
        .where(Job.team_id == job.team_id, Job.code_sha256 == job.code_sha256, Job.number < job.number)
        .where(Job.kind == job.kind, Job.state == State.SUCCEEDED)
    )
    what = "command" if job.kind == "script" else "path"
    same = same.where(Job.spec[job.kind][what] == literal(job.spec[job.kind][what], JSONB()))
    return session.scalars(same.order_by(Job.number.desc()).limit(1)).first()
