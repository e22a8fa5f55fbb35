"""Stored checkpoints that are damaged, and fetched as a worker does: ``python -m tests.support.damage [--bits 300]``.

Prints what was found; exits 1 if anything went unnoticed, or if the checkpoint before was not used in its place.
"""

import argparse
import math
import os
import platform
import random
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from stoker.jobs import blobs, records
from stoker.jobs.models import Attempt, Blob, BlobChunk, Checkpoint, Chunk, Event, Job
from stoker.jobs.resuming import latest_checkpoint
from stoker.training.failure import TrainingFailed
from stoker.training.resume import load
from stoker.workers.bounds import Bounds
from stoker.workers.devices import Nothing
from stoker.workers.preparation import Preparation
from stoker.workers.runs import Run
from tests.faults.report import say
from tests.support.checkpoints import written
from tests.support.services import make_template, quick_postgres, short_home
from tests.support.worker_parts import Parts, parts_of_a_worker

Harm = Callable[[Session, int, bytes, random.Random], None]  # to the stored chunk of a team with this digest
EARLIER, LATER = 10, 20  # steps


def flip(session: Session, team_id: int, sha256: bytes, dice: random.Random) -> None:
    """Turn one bit."""
    here = (Chunk.team_id == team_id, Chunk.sha256 == sha256)
    bits = 8 * (session.scalar(select(func.octet_length(Chunk.data)).where(*here)) or 0)
    bit = dice.randrange(bits)
    turned = func.set_bit(Chunk.data, bit, 1 - func.get_bit(Chunk.data, bit))
    session.execute(update(Chunk).where(*here).values(data=turned))


def _cut(session: Session, team_id: int, sha256: bytes, dice: random.Random) -> None:
    here = (Chunk.team_id == team_id, Chunk.sha256 == sha256)
    length = session.scalar(select(func.octet_length(Chunk.data)).where(*here)) or 0
    session.execute(update(Chunk).where(*here).values(data=func.substr(Chunk.data, 1, dice.randrange(length))))


def _blank(session: Session, team_id: int, sha256: bytes, dice: random.Random) -> None:
    here = (Chunk.team_id == team_id, Chunk.sha256 == sha256)
    data = session.scalars(select(Chunk.data).where(*here)).one()
    begin = dice.randrange(len(data) - 4096)
    hole = data[:begin] + bytes(4096) + data[begin + 4096 :]
    session.execute(update(Chunk).where(*here).values(data=hole))


def _remove(session: Session, team_id: int, sha256: bytes, _: random.Random) -> None:
    del team_id
    session.execute(delete(BlobChunk).where(BlobChunk.sha256 == sha256))


HARMS: dict[str, Harm] = {"a turned bit": flip, "a cut": _cut, "a hole of zeros": _blank, "a missing piece": _remove}


class Damage:
    """A running attempt of a job that has two checkpoints, of which the later one is damaged and fetched."""

    def __init__(self, parts: Parts, folder: Path) -> None:
        """Claim an attempt of a job that keeps two."""
        self._factory, self._folder = parts.queue.factory, folder
        parts.queue.submit(checkpoint={"keep_latest": 2})
        (outgoing,) = parts.queue.dispatch()
        claimed = parts.queue.claim(outgoing.attempt_id, parts.membership.id)
        self._run = Run(claimed, parts.membership.id, math.inf)
        self._preparation = Preparation(self._factory, Nothing(), {}, folder / "cache", 0, Bounds("none"))

    def found(self, harm: Harm, dice: random.Random) -> list[str]:
        """Store both, harm the later one, fetch what the job would go on from; what went wrong."""
        self._store(EARLIER)
        self._store(LATER)
        with self._factory() as session:
            job = session.get_one(Job, self._run.claimed.job_number)
            latest = latest_checkpoint(session, job)
            assert latest is not None, "two were stored"
            piece = select(BlobChunk.team_id, BlobChunk.sha256).where(BlobChunk.blob_id == latest.blob_id)
            harm(session, *session.execute(piece.limit(1)).one(), dice)
            session.commit()
        scratch = self._folder / "scratch"
        scratch.mkdir(exist_ok=True)
        told = self._told()
        run = Run(replace(self._run.claimed, checkpoint=latest), self._run.incarnation, self._run.deadline)
        source = self._preparation.fetch_checkpoint(run, scratch)
        wrong = [] if source is not None and source.step == EARLIER else [f"it would go on from {source}"]
        if self._told() != told + 1:
            wrong.append("no event tells of it")
        try:
            if source is not None and load(source).document["step"] != EARLIER:
                wrong.append("the one before is another")
        except TrainingFailed as failure:
            wrong.append(str(failure))
        self._forget()
        return wrong

    def _store(self, step: int) -> None:
        source = written(self._folder, step)
        path = Path(source.path)
        stored = blobs.store(self._factory, self._run.claimed.team_id, [path.read_bytes()])
        path.unlink()
        with self._factory() as session:
            records.add_checkpoint(
                session, self._run.id, self._run.incarnation, step=step, epoch=1,
                sha256=stored.sha256, size=stored.size, blob_id=stored.blob_id, metrics={},
            )  # fmt: skip
            session.commit()

    def _told(self) -> int:
        with self._factory() as session:
            return session.scalar(select(func.count()).where(Event.name == "checkpoint_damaged")) or 0

    def _forget(self) -> None:
        """Let both go, so that the next ones are stored anew."""
        with self._factory() as session:
            session.execute(update(Job).values(latest_checkpoint_id=None))
            session.execute(update(Attempt).values(resumed_from_id=None))
            for table in (Checkpoint, BlobChunk, Blob, Chunk):
                session.execute(delete(table))
            session.commit()


def main() -> int:
    """Turn bits, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    dice = random.Random(given.seed)
    say(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, seed {given.seed}")
    with quick_postgres() as postgres, short_home() as home, tempfile.TemporaryDirectory() as folder:
        url = postgres.create_database("damage", make_template(postgres))
        with parts_of_a_worker(url, home) as parts:
            damage = Damage(parts, Path(folder))
            missed = [wrong for _ in range(given.bits) if (wrong := damage.found(flip, dice))]
    for wrong in missed:
        say("; ".join(wrong))
    found = given.bits - len(missed)
    say(f"bits turned in stored checkpoints: {found} of {given.bits} found, and the checkpoint before used")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
