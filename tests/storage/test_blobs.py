"""Bytes go in, the same bytes come out, once per team; what was damaged is noticed."""

import hashlib
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session, sessionmaker

from stoker.errors import DataDamaged, NotFound
from stoker.jobs import blobs
from stoker.jobs.database import connect, sessions
from stoker.jobs.models import Blob, Chunk, Team

MIB = 2**20


@pytest.fixture
def factory(database_url: str) -> Iterator[sessionmaker[Session]]:
    engine = connect(database_url)
    yield sessions(engine)
    engine.dispose()


@pytest.fixture
def team(factory: sessionmaker[Session]) -> int:
    return add_team(factory, "vision")


def add_team(factory: sessionmaker[Session], name: str) -> int:
    with factory() as session:
        team = Team(name=name)
        session.add(team)
        session.commit()
        return team.id


def content(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def count(factory: sessionmaker[Session], table: type[Blob] | type[Chunk]) -> int:
    with factory() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB + 5])
@pytest.mark.parametrize("piece", [1000, MIB, 5 * MIB])
def test_what_goes_in_comes_out(factory: sessionmaker[Session], team: int, size: int, piece: int) -> None:
    data = content(size)
    stored = blobs.store(factory, team, (data[at : at + piece] for at in range(0, size, piece)))
    assert (stored.sha256, stored.size) == (hashlib.sha256(data).digest(), size)
    assert b"".join(blobs.read(factory, stored.blob_id)) == data
    with factory() as session:
        assert b"".join(blobs.read(session, stored.blob_id)) == data


def test_the_same_content_is_one_blob_of_each_team(factory: sessionmaker[Session], team: int) -> None:
    data = content(2 * MIB + 7)
    first, second = (blobs.store(factory, team, [data]) for _ in range(2))
    assert first == second
    assert (count(factory, Blob), count(factory, Chunk)) == (1, 3)
    other = blobs.store(factory, add_team(factory, "nlp"), [data])
    assert other.blob_id != first.blob_id
    assert (count(factory, Blob), count(factory, Chunk)) == (2, 6)


def test_writers_at_once_share_one_blob(factory: sessionmaker[Session], team: int) -> None:
    data = content(MIB + 3)
    with ThreadPoolExecutor(4) as pool:
        stored = list(pool.map(lambda _: blobs.store(factory, team, [data]), range(8)))
    assert len({one.blob_id for one in stored}) == 1
    assert (count(factory, Blob), count(factory, Chunk)) == (1, 2)


def test_a_chunk_that_exists_is_touched(factory: sessionmaker[Session], team: int) -> None:
    blobs.store(factory, team, [b"weights"])
    with factory() as session:
        session.execute(text("UPDATE chunks SET touched_at = now() - interval '2 hours'"))
        session.commit()
    blobs.store(factory, team, [b"weights"])
    with factory() as session:
        assert session.scalar(text("SELECT now() - touched_at < interval '1 minute' FROM chunks"))


@pytest.mark.parametrize(
    ("start", "length"), [(0, 10), (MIB - 5, 10), (MIB, MIB), (2 * MIB, 100), (2 * MIB + 90, 50), (5, 2 * MIB), (7, 0)]
)
def test_a_range_is_a_slice(factory: sessionmaker[Session], team: int, start: int, length: int) -> None:
    data = content(2 * MIB + 100)
    stored = blobs.store(factory, team, [data])
    with factory() as session:
        assert blobs.read_range(session, stored.blob_id, start, length) == data[start : start + length]


def test_spans_are_slices_in_their_order(factory: sessionmaker[Session], team: int) -> None:
    data = content(2 * MIB + 100)
    stored = blobs.store(factory, team, [data])
    spans = [(5, 9), (MIB - 1, MIB + 1), (MIB + 1, MIB + 1), (MIB + 7, 2 * MIB + 100), (0, 3)]
    pieces = list(blobs.read_spans(factory, stored.blob_id, spans))
    assert b"".join(pieces) == b"".join(data[start:end] for start, end in spans)
    assert max(map(len, pieces)) <= MIB
    with pytest.raises(DataDamaged):
        list(blobs.read_spans(factory, stored.blob_id, [(2 * MIB + 99, 2 * MIB + 101)]))
    with pytest.raises(DataDamaged):
        list(blobs.read_spans(factory, stored.blob_id, [(9 * MIB, 9 * MIB + 1)]))


def test_one_flipped_bit_is_noticed(factory: sessionmaker[Session], team: int) -> None:
    stored = blobs.store(factory, team, [content(2 * MIB)])
    with factory() as session:
        session.execute(text("UPDATE chunks SET data = set_bit(data, 4711, 1 - get_bit(data, 4711))"))
        session.commit()
        with pytest.raises(DataDamaged):
            blobs.read_range(session, stored.blob_id, MIB, 10)
    with pytest.raises(DataDamaged, match=f"blob {stored.blob_id} is damaged"):
        list(blobs.read(factory, stored.blob_id))


def test_storing_the_same_again_repairs_what_was_damaged(factory: sessionmaker[Session], team: int) -> None:
    data = content(2 * MIB)
    stored = blobs.store(factory, team, [data])
    with factory() as session:
        session.execute(text("UPDATE chunks SET data = set_bit(data, 4711, 1 - get_bit(data, 4711))"))
        session.commit()
    assert blobs.store(factory, team, [data]) == stored
    assert b"".join(blobs.read(factory, stored.blob_id)) == data


def test_new_content_does_not_land_on_a_damaged_chunk(factory: sessionmaker[Session], team: int) -> None:
    data = content(MIB)
    blobs.store(factory, team, [data])
    with factory() as session:
        session.execute(text("UPDATE chunks SET data = substr(data, 2)"))
        session.commit()
    longer = blobs.store(factory, team, [data, b"more"])
    assert b"".join(blobs.read(factory, longer.blob_id)) == data + b"more"


def test_a_missing_chunk_is_noticed(factory: sessionmaker[Session], team: int) -> None:
    stored = blobs.store(factory, team, [b"weights"])
    with factory() as session:
        session.execute(text("DELETE FROM chunks"))
        session.commit()
    with pytest.raises(DataDamaged):
        list(blobs.read(factory, stored.blob_id))


def test_a_chunk_removed_while_storing_leaves_no_blob(factory: sessionmaker[Session], team: int) -> None:
    def source() -> Iterator[bytes]:
        yield content(MIB)
        with factory() as session:
            session.execute(text("DELETE FROM chunks"))
            session.commit()
        yield b"rest"

    with pytest.raises(DataDamaged, match="removed while"):
        blobs.store(factory, team, source())
    assert count(factory, Blob) == 0


def test_no_such_blob(factory: sessionmaker[Session]) -> None:
    with pytest.raises(NotFound, match="no blob 7"):
        blobs.read(factory, 7)
