"""Content of any length, stored as chunks of 1 MiB under their SHA-256, once per team.

Every transaction is short: a chunk is committed on its own, and the blob's row comes last, when all of its chunks are
there. A writer that dies in between leaves chunks that nobody refers to, never a blob with holes.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from sqlalchemy import BindParameter, bindparam, func, insert, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session, sessionmaker

from stoker.errors import DataDamaged, NotFound
from stoker.jobs.models import Blob, BlobChunk, Chunk

CHUNK_BYTES = 2**20  # every chunk of a blob but its last has exactly so many: a position follows from an offset

Source = Session | sessionmaker[Session]


@dataclass(frozen=True, slots=True)
class Stored:
    """A blob that is stored whole."""

    blob_id: int
    sha256: bytes
    size: int


def store(factory: sessionmaker[Session], team_id: int, source: Iterable[bytes]) -> Stored:
    """Store content that comes in pieces of any length; the same content twice is one blob.

    Commits on its own, in many short transactions.
    """
    whole = hashlib.sha256()
    size = 0
    digests: list[bytes] = []
    for data in _chunks(source):
        digest = hashlib.sha256(data).digest()
        whole.update(data)
        size += len(data)
        digests.append(digest)
        with factory() as session:
            _add_chunk(session, team_id, digest, data)
            session.commit()
    with factory() as session:
        blob_id = _add_blob(session, team_id, whole.digest(), size, digests)
        session.commit()
    return Stored(blob_id, whole.digest(), size)


def read(source: Source, blob_id: int) -> Iterator[bytes]:
    """Yield a blob's content chunk by chunk, each verified against its SHA-256.

    Given a factory, no transaction stays open between two chunks, so that the reader may be slow.

    Raises NotFound at once; DataDamaged when the reading reaches a chunk that is missing or differs.
    """
    with _session(source) as session:
        digests = _layout(session, blob_id)
    return _verified(source, digests, blob_id)


def read_range(session: Session, blob_id: int, start: int, length: int) -> bytes:
    """Return ``length`` bytes from offset ``start``, fewer where the blob ends; whole chunks are read and verified.

    Raises NotFound, DataDamaged.
    """
    first, last = start // CHUNK_BYTES, (start + max(length, 1) - 1) // CHUNK_BYTES
    found = b"".join(_verified(session, _layout(session, blob_id, first, last), blob_id))
    offset = start - first * CHUNK_BYTES
    return found[offset : offset + length]


def read_spans(source: Source, blob_id: int, spans: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    """Yield the bytes of each span (from an offset to another), in pieces; chunks are read once, as in ``read``.

    Raises NotFound; DataDamaged, also for a span beyond the end.
    """
    with _session(source) as session:
        digests = _layout(session, blob_id)
    position, data = -1, b""
    for start, end in spans:
        at = start
        while at < end:
            if at // CHUNK_BYTES != position:
                position = at // CHUNK_BYTES
                data = b"".join(_verified(source, digests[position : position + 1], blob_id))
            offset = at - position * CHUNK_BYTES
            piece = data[offset : offset + end - at]
            if not piece:
                raise DataDamaged(f"blob {blob_id}")
            yield piece
            at += len(piece)


def _chunks(source: Iterable[bytes]) -> Iterator[bytes]:
    """Cut pieces of any length into chunks of exactly CHUNK_BYTES, the last one shorter."""
    buffer = bytearray()
    for piece in source:
        buffer += piece
        start = 0
        while len(buffer) - start >= CHUNK_BYTES:
            yield bytes(buffer[start : start + CHUNK_BYTES])
            start += CHUNK_BYTES
        del buffer[:start]
    if buffer:
        yield bytes(buffer)


def _add_chunk(session: Session, team_id: int, digest: bytes, data: bytes) -> None:
    """Touch a chunk that exists, which keeps the collector away from it, or insert it.

    What lies there is replaced where it was damaged, so that nothing new relies on it. To compare the bytes takes 1 ms
    of a MiB, to let the database compute their digest 5 ms, to insert them 4 ms.
    """
    known = update(Chunk).where(Chunk.team_id == team_id, Chunk.sha256 == digest)
    if session.execute(known.values(touched_at=func.now()).returning(Chunk.team_id)).first():
        right: BindParameter[bytes] = bindparam("right", data)  # sent once
        session.execute(known.where(Chunk.data != right).values(data=right))
        return
    added = postgresql.insert(Chunk).values(team_id=team_id, sha256=digest, data=data)
    session.execute(  # another writer may have added it since
        added.on_conflict_do_update(index_elements=["team_id", "sha256"], set_={"touched_at": func.now()})
    )


def _add_blob(session: Session, team_id: int, sha256: bytes, size: int, digests: list[bytes]) -> int:
    """Return the id of the team's blob with this content, adding its row when there is none."""
    session.execute(select(func.pg_advisory_xact_lock(int.from_bytes(sha256[:8], signed=True))))
    # What is found counts as new, so that the collector leaves it alone until somebody refers to it.
    found = update(Blob).where(Blob.team_id == team_id, Blob.sha256 == sha256).values(created_at=func.now())
    blob_id = session.execute(found.returning(Blob.id)).scalars().first()
    if blob_id is not None:
        return blob_id
    held = select(Chunk.sha256).where(Chunk.team_id == team_id, Chunk.sha256.in_(set(digests)))
    if len(session.scalars(held.with_for_update(key_share=True)).all()) != len(set(digests)):
        raise DataDamaged(f"content {sha256.hex()[:12]}: a chunk was removed while it was being stored, and it")
    blob_id = session.execute(
        insert(Blob).values(team_id=team_id, sha256=sha256, bytes=size).returning(Blob.id)
    ).scalar_one()
    rows = [
        {"blob_id": blob_id, "position": position, "team_id": team_id, "sha256": digest}
        for position, digest in enumerate(digests)
    ]
    if rows:
        session.execute(insert(BlobChunk), rows)
    return blob_id


def _layout(session: Session, blob_id: int, first: int = 0, last: int | None = None) -> list[tuple[int, bytes]]:
    """Return (team, digest) of a blob's chunks from position ``first`` to ``last``, in order."""
    if session.get(Blob, blob_id) is None:
        raise NotFound("blob", blob_id)
    statement = select(BlobChunk.team_id, BlobChunk.sha256).where(
        BlobChunk.blob_id == blob_id, BlobChunk.position >= first
    )
    if last is not None:
        statement = statement.where(BlobChunk.position <= last)
    return [(team_id, digest) for team_id, digest in session.execute(statement.order_by(BlobChunk.position))]


def _verified(source: Source, digests: list[tuple[int, bytes]], blob_id: int) -> Iterator[bytes]:
    for team_id, digest in digests:
        with _session(source) as session:
            data = session.scalars(
                select(Chunk.data).where(Chunk.team_id == team_id, Chunk.sha256 == digest)
            ).one_or_none()
        if data is None or hashlib.sha256(data).digest() != digest:
            raise DataDamaged(f"blob {blob_id}")
        yield data


def _session(source: Source) -> AbstractContextManager[Session]:
    return nullcontext(source) if isinstance(source, Session) else source()
