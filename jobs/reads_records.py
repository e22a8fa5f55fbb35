"""Logs, checkpoints and results, as they are shown."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from stoker.errors import NotFound
from stoker.jobs.models import Attempt, Checkpoint, Job, LogChunk, Result
from stoker.jobs.pages import Page, cursor, position
from stoker.jobs.records import best_checkpoints

TAIL_CHUNKS = 2_000  # looked through for the last lines of a log


@dataclass(frozen=True, slots=True)
class LogView:
    """Some of what an attempt printed; a piece may begin and end inside a line."""

    id: int
    attempt: int
    at: datetime
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointView:
    """A checkpoint that is kept."""

    id: int
    step: int
    epoch: int
    bytes: int
    sha256: str
    metrics: dict[str, Any]
    latest: bool
    best: bool
    damaged: bool
    created_at: datetime


def read_logs(session: Session, number: int, limit: int, after: int = 0) -> Page[LogView]:
    """A job's log from the piece after ``after`` on; ``next`` is the ``after`` of the next page."""
    statement = (
        select(LogChunk, Attempt.ordinal)
        .join(Attempt, Attempt.id == LogChunk.attempt_id)
        .where(LogChunk.job_number == number, LogChunk.id > after)
        .order_by(LogChunk.id)
        .limit(limit + 1)
    )
    found = [LogView(chunk.id, ordinal, chunk.at, chunk.text) for chunk, ordinal in session.execute(statement)]
    return Page(found[:limit], str(found[limit - 1].id) if len(found) > limit else None)


def read_log_tail(session: Session, number: int, lines: int) -> Page[LogView]:
    """The last lines of a job's log."""
    statement = (
        select(LogChunk, Attempt.ordinal)
        .join(Attempt, Attempt.id == LogChunk.attempt_id)
        .where(LogChunk.job_number == number)
        .order_by(LogChunk.id.desc())
        .limit(TAIL_CHUNKS)
    )
    found: list[LogView] = []
    rows = session.execute(statement.execution_options(yield_per=20))
    for chunk, ordinal in rows:
        text, lines = _last_lines(chunk.text, lines, last=not found)
        found.append(LogView(chunk.id, ordinal, chunk.at, text))
        if not lines:
            break
    rows.close()
    return Page([view for view in reversed(found) if view.text])


def _last_lines(text: str, wanted: int, *, last: bool) -> tuple[str, int]:
    """The end of a piece from the ``wanted``-th line end from its end on, and how many more are to be found before it.

    The line end that closes the whole log (``last``) has no line after it and does not count.
    """
    end = len(text) - (last and text.endswith("\n"))
    while wanted:
        end = text.rfind("\n", 0, end)
        if end < 0:
            return text, wanted
        wanted -= 1
    return text[end + 1 :], 0


def list_checkpoints(session: Session, job: Job, limit: int, after: str | None) -> Page[CheckpointView]:
    """The checkpoints of a job that are kept, the latest first."""
    statement = (
        select(Checkpoint)
        .where(Checkpoint.job_number == job.number, Checkpoint.blob_id.is_not(None))
        .order_by(Checkpoint.id.desc())
        .limit(limit + 1)
    )
    if (last := position("checkpoint", after)) is not None:
        statement = statement.where(Checkpoint.id < last)
    best = next(iter(best_checkpoints(session, job.number, 1)), job.latest_checkpoint_id)
    found = [
        CheckpointView(
            id=one.id,
            step=one.step,
            epoch=one.epoch,
            bytes=one.bytes,
            sha256=one.sha256.hex(),
            metrics=one.metrics,
            latest=one.id == job.latest_checkpoint_id,
            best=one.id == best,
            damaged=one.damaged_at is not None,
            created_at=one.created_at,
        )
        for one in session.scalars(statement)
    ]
    return Page(found[:limit], cursor("checkpoint", found[limit - 1].id) if len(found) > limit else None)


def read_result(session: Session, job: Job) -> dict[str, Any]:
    """What a job is worth: accuracy, loss, per_class, confusion, …, and the id of its checkpoint.

    Raises NotFound: there is none, or none yet.
    """
    result = session.get(Result, job.number)
    if result is None:
        raise NotFound("result of job", job.number, f"it is {job.state}")
    return result.document | {"checkpoint": result.checkpoint_id}
