"""From a database to evidence."""

import hashlib
import json
import struct
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, func, literal_column, select
from sqlalchemy.orm import Session

from stoker.errors import DataDamaged, NotFound
from stoker.jobs import blobs
from stoker.jobs.lifecycle import MOVES, AttemptState
from stoker.jobs.models import (
    Attempt,
    Checkpoint,
    Device,
    Event,
    IdempotencyKey,
    Job,
    Lease,
    LogChunk,
    MetricSegment,
    Predictions,
    Result,
    Worker,
)
from stoker.jobs.records import cuts, unpack_segment
from tests.faults.evidence import AttemptFact, CheckpointFact, Evidence, JobFact, Outcome, Series

COMMITTED: ColumnElement[datetime] = literal_column("pg_xact_commit_timestamp(attempts.xmin)")
MODEL = "model."  # what the names of the weights in a checkpoint begin with


def collect(session: Session, after: int = 0) -> Evidence:
    """Everything the checker looks at, of the jobs with higher numbers than ``after``."""
    numbers = session.scalars(select(Job.number).where(Job.number > after).order_by(Job.number)).all()
    in_use: dict[str, int] = {}
    for worker in session.scalars(select(Worker)):
        for counter in ("cpus_used_milli", "memory_used_bytes", "attempts_used"):
            in_use[f"{worker.name}: {counter}"] = getattr(worker, counter)
    for device in session.scalars(select(Device)):
        in_use[f"{device.uuid}: used_milli"] = device.used_milli
    leases = session.scalar(select(func.count()).where(Lease.attempt_id.is_not(None))) or 0
    return Evidence(tuple(_job(session, number) for number in numbers), in_use, leases)


def _job(session: Session, number: int) -> JobFact:
    job = session.get_one(Job, number, populate_existing=True)
    key = session.scalar(select(IdempotencyKey.key).where(IdempotencyKey.job_number == number))
    result = session.get(Result, number)
    names = [move.name for move in MOVES]
    moves = select(Event.name).where(Event.job_number == number, Event.name.in_(names)).order_by(Event.id)
    return JobFact(
        number=number,
        recipe=job.name,
        key=key,
        state=job.state,
        failure=job.failure["class"] if job.failure else None,
        moves=tuple(session.scalars(moves)),
        results=_count(session, Result, number),
        predictions=_count(session, Predictions, number),
        result_attempt=str(result.attempt_id) if result else None,
        outcome=outcome_of(session, number),
        attempts=tuple(_attempts(session, number)),
        checkpoints=tuple(_checkpoints(session, number)),
    )


def _count(session: Session, table: type[Result] | type[Predictions], number: int) -> int:
    return session.scalar(select(func.count()).where(table.job_number == number)) or 0


def _attempts(session: Session, number: int) -> Iterable[AttemptFact]:
    last: dict[UUID, float] = defaultdict(float)
    for table, column in ((Checkpoint, Checkpoint.created_at), (LogChunk, LogChunk.at)):
        rows = select(table.attempt_id, func.max(column)).where(table.job_number == number).group_by(table.attempt_id)
        for attempt_id, at in session.execute(rows):
            last[attempt_id] = max(last[attempt_id], at.timestamp())
    attempts = select(Attempt, COMMITTED).where(Attempt.job_number == number).order_by(Attempt.ordinal)
    for attempt, committed in session.execute(attempts, execution_options={"populate_existing": True}):
        yield AttemptFact(
            id=str(attempt.id),
            ordinal=attempt.ordinal,
            state=attempt.state,
            outcome=attempt.outcome,
            claimed_at=_seconds(attempt.claimed_at),
            closed_at=_seconds(committed) if attempt.state == AttemptState.ENDED else None,
            resumed_from=attempt.resumed_from_id,
            stepped=attempt.first_step_at is not None,
            last_write_at=last.get(attempt.id),
            failure=attempt.failure["class"] if attempt.failure else None,
        )


def _seconds(at: datetime | None) -> float | None:
    return at.timestamp() if at else None


def _checkpoints(session: Session, number: int) -> Iterable[CheckpointFact]:
    rows = select(Checkpoint).where(Checkpoint.job_number == number).order_by(Checkpoint.id)
    for row in session.scalars(rows, execution_options={"populate_existing": True}):
        readable = row.blob_id is None or _content(session, row) is not None
        yield CheckpointFact(row.id, row.step, readable, reported=row.damaged_at is not None)


def _content(session: Session, checkpoint: Checkpoint) -> bytes | None:
    """The bytes of a checkpoint; None if they are not what its row says."""
    if checkpoint.blob_id is None:
        return None
    try:
        content = b"".join(blobs.read(session, checkpoint.blob_id))
    except (DataDamaged, NotFound):
        return None
    return content if hashlib.sha256(content).digest() == checkpoint.sha256 else None


def outcome_of(session: Session, number: int) -> Outcome:
    """What a job's training is worth, as far as there is a result."""
    result, predictions = session.get(Result, number), session.get(Predictions, number)
    weights = None
    if result is not None and result.checkpoint_id is not None:
        content = _content(session, session.get_one(Checkpoint, result.checkpoint_id))
        weights = digest_of_weights(content) if content else None
    packed = hashlib.sha256(predictions.packed).hexdigest() if predictions else None
    return Outcome(weights, packed, _series(session, number))


def digest_of_weights(content: bytes) -> str:
    """The SHA-256 over name, type, shape and bytes of each of the model's tensors in a safetensors file."""
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    digest, data = hashlib.sha256(), content[8 + length :]
    for name in sorted(name for name in header if name.startswith(MODEL)):
        begin, end = header[name]["data_offsets"]
        digest.update(json.dumps([name, header[name]["dtype"], header[name]["shape"]]).encode())
        digest.update(data[begin:end])
    return digest.hexdigest()


def _series(session: Session, number: int) -> Series:
    counted = cuts(session, number)
    points: dict[str, list[tuple[int, float]]] = defaultdict(list)
    segments = (
        select(MetricSegment)
        .join(Attempt, Attempt.id == MetricSegment.attempt_id)
        .where(MetricSegment.job_number == number)
        .order_by(MetricSegment.key, Attempt.ordinal, MetricSegment.id)  # as they were written: nothing is put right
    )
    for segment in session.scalars(segments):
        last = counted[segment.attempt_id]
        pairs = zip(*unpack_segment(segment), strict=True)
        points[segment.key] += [pair for pair in pairs if last is None or pair[0] <= last]
    return {
        key: (tuple(step for step, _ in found), tuple(value for _, value in found))
        for key, found in points.items()
        if found
    }
