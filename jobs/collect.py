"""Lets go of bytes that nothing refers to any more."""

from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Session

from stoker.jobs.models import Blob, BlobChunk, Checkpoint, Chunk, CodeSnapshot, Dataset, IdempotencyKey, Sprite

UNTOUCHED = text("interval '1 hour'")  # long enough for the row that refers to the bytes to be written
KEYS_KEPT = text("interval '7 days'")
BATCH = 500  # rows of up to 1 MiB a transaction


def collect(session: Session) -> None:
    """Delete some unreferenced blobs and chunks that nobody touched for an hour, and idempotency keys of last week."""
    users = [Checkpoint.blob_id, Dataset.blob_id, CodeSnapshot.blob_id, Sprite.blob_id]
    unused = select(Blob.id).where(Blob.created_at < func.now() - UNTOUCHED)
    for column in users:
        unused = unused.where(~select(column).where(column == Blob.id).exists())
    blobs = session.scalars(unused.limit(BATCH).with_for_update(skip_locked=True)).all()
    session.execute(delete(Blob).where(Blob.id.in_(blobs)))
    session.flush()
    used = select(BlobChunk.blob_id).where(BlobChunk.team_id == Chunk.team_id, BlobChunk.sha256 == Chunk.sha256)
    old = (
        select(Chunk.team_id, Chunk.sha256)
        .where(Chunk.touched_at < func.now() - UNTOUCHED, ~used.exists())
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    for team, sha256 in session.execute(old).all():
        session.execute(delete(Chunk).where(Chunk.team_id == team, Chunk.sha256 == sha256))
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < func.now() - KEYS_KEPT))
