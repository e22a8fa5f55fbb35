"""A job that ran, without a worker process: the functions that a supervisor calls are called here."""

import struct
import uuid
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from stoker.jobs import attempts, blobs, dispatch, fleet, predictions, records, submissions
from stoker.jobs.attempts import Ending, PredictionsRecord
from stoker.jobs.claims import Claimed
from stoker.jobs.fleet import Identity, Offer, OfferedDevice
from stoker.jobs.lifecycle import Outcome
from stoker.jobs.models import User
from stoker.jobs.spec import parse_spec

CLASSES = ("cat", "dog", "<b>bird</b>")
ROWS = [(0, 0, 0.75), (0, 1, 0.5), (1, 1, 1.0), (2, 2, 0.625), (2, 0, 0.25), (1, 1, 0.875)]
ACCURACY = 4 / 6
HEIGHT, WIDTH, CHANNELS = 3, 4, 3
TILE = HEIGHT * WIDTH * CHANNELS


@dataclass
class FakeWorker:
    """A registered worker that claims when it is told to."""

    factory: sessionmaker[Session]
    incarnation: uuid.UUID

    @classmethod
    def start(cls, factory: sessionmaker[Session], name: str = "w1", gpus: int = 0) -> "FakeWorker":
        devices = tuple(OfferedDevice(f"GPU-{at}", at, "H200", 10**11) for at in range(gpus))
        identity = Identity(uuid.uuid4(), "host", "boot", 1, 1.0, "0.1")
        with factory() as session:
            fleet.register(session, Offer(name, 8000, 10**11, 16, "cpu", devices), identity, 60)
            session.commit()
        return cls(factory, identity.id)

    def claim(self) -> Claimed:
        """Place what can be placed, and claim the first of it."""
        with self.factory() as session:
            placed = dispatch.dispatch(session)
            session.commit()
            claimed = attempts.claim(session, placed.sent[0].attempt_id, self.incarnation, 60)
            session.commit()
        return claimed

    def batch(self, claimed: Claimed, **reported: Any) -> None:
        with self.factory() as session:
            records.write_batch(session, claimed.attempt_id, self.incarnation, records.Batch(**reported))
            session.commit()

    def checkpoint(self, claimed: Claimed, content: bytes, step: int, **metrics: float) -> int:
        stored = blobs.store(self.factory, claimed.team_id, [content])
        with self.factory() as session:
            made = records.add_checkpoint(
                session,
                claimed.attempt_id,
                self.incarnation,
                step=step,
                epoch=step // 10,
                sha256=stored.sha256,
                size=stored.size,
                blob_id=stored.blob_id,
                metrics=metrics,
            )
            session.commit()
        return made

    def finish(self, claimed: Claimed, ending: Ending) -> None:
        with self.factory() as session:
            attempts.finish(session, claimed.attempt_id, self.incarnation, ending)
            session.commit()

    def succeed(self, claimed: Claimed) -> None:
        """Finish with six predictions and their images."""
        strip = tile_bytes(len(ROWS))
        stored = blobs.store(self.factory, claimed.team_id, [strip])
        with self.factory() as session:
            sprite = records.add_sprite(
                session,
                claimed.team_id,
                sha256=stored.sha256,
                blob_id=stored.blob_id,
                count=len(ROWS),
                height=HEIGHT,
                width=WIDTH,
                channels=CHANNELS,
            )
            session.commit()
        made = PredictionsRecord(len(ROWS), predictions.pack(ROWS), CLASSES, sprite)
        result = {"accuracy": ACCURACY, "loss": 0.5, "classes": list(CLASSES), "test_images": len(ROWS)}
        self.finish(claimed, Ending(Outcome.SUCCEEDED, result=result, predictions=made))


def tile_bytes(count: int) -> bytes:
    """Images in which every pixel differs from its neighbours."""
    return bytes((37 * at) % 251 for at in range(count * TILE))


def submit(factory: sessionmaker[Session], user: str = "ada", **fields: Any) -> int:
    """Submit a job of digits; its number."""
    with factory() as session:
        owner = session.scalars(select(User).where(User.name == user)).one()
        spec = parse_spec({"train": {"dataset": "digits"}} | fields)
        job, _ = submissions.add_job(session, spec, owner)
        session.commit()
        return job.number


def finished(factory: sessionmaker[Session], worker: FakeWorker, user: str = "ada") -> int:
    """A job that succeeded, with metrics, log, checkpoint, result and predictions; its number."""
    number = submit(factory, user)
    claimed = worker.claim()
    progress = {"phase": "train", "epoch": 1, "epochs": 2, "step": 5, "steps": 10, "images_per_second": 9.0}
    worker.batch(claimed, progress=progress, metrics={"loss": ([1, 2], [2.5, 1.5])}, log="epoch 1\nepoch 2\n")
    worker.checkpoint(claimed, checkpoint_file(), 10)
    worker.succeed(claimed)
    return number


def checkpoint_file() -> bytes:
    """A small checkpoint: one weight of the model, one tensor of the optimizer."""
    header = (
        b'{"model.weight":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
        b'"optimizer.momentum":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}'
    )
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + struct.pack("<4f", 1.5, -2.0, 3.0, 4.0)
