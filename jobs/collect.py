"""Lets go of bytes that nothing refers to any more."""

from typing import Any

from sqlalchemy import ColumnElement, Select, delete, func, select, text, tuple_
from sqlalchemy.orm import Session, sessionmaker

from stoker.jobs.base import Base
from stoker.jobs.models import (
    Blob,
    BlobChunk,
    Checkpoint,
    Chunk,
    CodeSnapshot,
    Dataset,
    IdempotencyKey,
    Job,
    Output,
    Sprite,
)

UNTOUCHED = text("interval '1 hour'")  # long enough for the row that refers to the bytes to be written
KEYS_KEPT = text("interval '7 days'")
BATCH = 500  # rows of up to 1 MiB a transaction


def collect(factory: sessionmaker[Session]) -> None:
    """Delete what is unreferenced and was not touched for an hour, in short transactions, until nothing is left."""
    for step in (_keys, _code, _blobs, _chunks):
        deleted = BATCH
        while deleted == BATCH:
            with factory() as session:
                deleted = step(session)
                session.commit()


def _keys(session: Session) -> int:
    old = select(IdempotencyKey.user_id, IdempotencyKey.key).where(IdempotencyKey.created_at < func.now() - KEYS_KEPT)
    return _delete(session, IdempotencyKey, tuple_(IdempotencyKey.user_id, IdempotencyKey.key), old)


def _code(session: Session) -> int:
    used = select(Job.number).where(Job.team_id == CodeSnapshot.team_id, Job.code_sha256 == CodeSnapshot.sha256)
    unused = (CodeSnapshot.touched_at < func.now() - UNTOUCHED, ~used.exists())
    old = select(CodeSnapshot.team_id, CodeSnapshot.sha256).where(*unused)
    return _delete(session, CodeSnapshot, tuple_(CodeSnapshot.team_id, CodeSnapshot.sha256), old, *unused)


def _blobs(session: Session) -> int:
    columns = (Checkpoint.blob_id, Dataset.blob_id, CodeSnapshot.blob_id, Sprite.blob_id, Output.blob_id)
    unused = [~select(column).where(column == Blob.id).exists() for column in columns]
    unused.append(Blob.created_at < func.now() - UNTOUCHED)
    return _delete(session, Blob, Blob.id, select(Blob.id).where(*unused), *unused)


def _chunks(session: Session) -> int:
    used = select(BlobChunk.blob_id).where(BlobChunk.team_id == Chunk.team_id, BlobChunk.sha256 == Chunk.sha256)
    unused = (Chunk.touched_at < func.now() - UNTOUCHED, ~used.exists())
    old = select(Chunk.team_id, Chunk.sha256).where(*unused)
    return _delete(session, Chunk, tuple_(Chunk.team_id, Chunk.sha256), old, *unused)


def _delete(
    session: Session, table: type[Base], key: Any, found: Select[*tuple[Any, ...]], *still: ColumnElement[bool]
) -> int:
    """Lock a batch of rows, and delete those for which ``still`` holds under the lock; returns the batch's size."""
    rows = session.execute(found.limit(BATCH).with_for_update(skip_locked=True, of=table)).all()
    keys = [tuple(row) if len(row) > 1 else row[0] for row in rows]
    session.execute(delete(table).where(key.in_(keys), *still), execution_options={"synchronize_session": False})
    return len(keys)
