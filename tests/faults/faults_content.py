"""Faults of what is stored and sent: messages, bytes, disks, clocks; and users who change their minds."""

import base64
import json
import pickle
import resource
import signal
import uuid

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from stoker.errors import StokerError
from stoker.jobs import steering
from stoker.jobs.attempts import Outgoing
from stoker.jobs.fleet import set_draining
from stoker.jobs.leases import outgoing
from stoker.jobs.lifecycle import AttemptState
from stoker.jobs.models import Attempt, BlobChunk, Checkpoint, Chunk, Job
from stoker.messages.app import TASK, make_app, queue_of, send
from tests.faults.clients import Api
from tests.faults.nemesis import Nemesis, trainers_of
from tests.faults.schedule import Planned
from tests.support.signals import signal_process

COPIES = 100
PICKLE = pickle.dumps(print)  # loading it would be a defect, not a harm


def duplicate_messages(nemesis: Nemesis, _: Planned, copies: int = COPIES) -> bool:
    """Send the messages of all live attempts again, many times."""
    with nemesis.system.sessions() as session:
        live = list(session.scalars(select(Attempt.id).where(Attempt.state != AttemptState.ENDED)))
        found: list[Outgoing] = list(outgoing(session, live))
    app = make_app(nemesis.system.redis.url)
    for number in range(copies if found else 0):
        send(found[number % len(found)], using=app)
    app.close()
    return bool(found)


def lose_messages(nemesis: Nemesis, planned: Planned) -> bool:
    """Empty all workers' queues, again and again for a while."""
    names = [queue_of(member.name) for member in nemesis.system.workers]
    with nemesis.system.redis.client() as client:

        def empty() -> bool:
            client.delete(*names)
            return False

        nemesis.wait_until(empty, 1.0 * planned.seconds)
    return True


def send_garbage(nemesis: Nemesis, _: Planned) -> bool:
    """Put into each queue what no worker may run, and no pickle be opened."""
    with nemesis.system.sessions() as session:
        ended = session.scalar(select(Attempt.id).where(Attempt.state == AttemptState.ENDED).limit(1))
    app = make_app(nemesis.system.redis.url)
    with nemesis.system.redis.client() as client:
        for member in nemesis.system.workers:
            queue = queue_of(member.name)
            for task, arguments in (
                (TASK, [str(ended or uuid.uuid4())]),
                (TASK, ["x", 1]),
                (TASK, []),
                ("no.task", []),
            ):
                app.send_task(task, args=arguments, queue=queue, retry=False)
            app.send_task(TASK, args=[str(uuid.uuid4())], queue=queue, retry=False)
            for body in (b"\x80garbage", b"{}", b"[1", _envelope(queue)):
                client.lpush(queue, body)
    app.close()
    return True


def _envelope(queue: str) -> bytes:
    """A message whose body is a pickle."""
    return json.dumps(
        {
            "body": base64.b64encode(PICKLE).decode(),
            "content-type": "application/x-python-serialize",
            "content-encoding": "binary",
            "headers": {"task": TASK, "id": str(uuid.uuid4())},
            "properties": {
                "delivery_tag": str(uuid.uuid4()),
                "delivery_info": {"exchange": "", "routing_key": queue},
                "body_encoding": "base64",
            },
        }
    ).encode()


def fill_disk(nemesis: Nemesis, planned: Planned) -> bool:
    """Take all the room of one worker's scratch folder; without a disk of its own, limit its trainers' files."""
    scratch = nemesis.system.scratch
    if scratch.made:
        scratch.fill()
        nemesis.later(1.5 * planned.seconds, scratch.clear)
        return True
    for member in nemesis.workers():
        for _, pid in trainers_of(member):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (100_000, 100_000))
            return True
    return False


def flip_bit(nemesis: Nemesis, _: Planned) -> bool:
    """Turn one bit of the latest checkpoint of a running job, then kill its trainer, which must go on from another."""
    fresh = nemesis.fresh_jobs()
    for member in nemesis.workers():
        for job, pid in trainers_of(member):
            if job not in fresh:
                continue
            signal_process(pid, signal.SIGSTOP)  # no other checkpoint becomes the latest meanwhile
            with nemesis.system.sessions() as session:
                flipped = _flip(session, nemesis, job)
                session.commit()
            signal_process(pid, signal.SIGKILL if flipped else signal.SIGCONT)
            if flipped:
                return True
    return False


def _flip(session: Session, nemesis: Nemesis, job: int) -> bool:
    latest = session.execute(
        select(Checkpoint.id, BlobChunk.team_id, BlobChunk.sha256)
        .join(Job, Job.latest_checkpoint_id == Checkpoint.id)
        .join(BlobChunk, BlobChunk.blob_id == Checkpoint.blob_id)
        .where(Job.number == job)
        .limit(1)
    ).one_or_none()
    if latest is None:
        return False
    here = (Chunk.team_id == latest.team_id, Chunk.sha256 == latest.sha256)
    bits = 8 * (session.scalar(select(func.octet_length(Chunk.data)).where(*here)) or 0)
    bit = nemesis.dice.randrange(bits)
    turned = func.set_bit(Chunk.data, bit, 1 - func.get_bit(Chunk.data, bit))
    session.execute(update(Chunk).where(*here).values(data=turned))
    now = float(session.scalar(select(func.extract("epoch", func.clock_timestamp()))) or 0)
    nemesis.history.note("flip", checkpoint=latest.id, job=job, bit=bit, database_seconds=now)
    return True


def shift_clock(nemesis: Nemesis, _: Planned) -> bool:
    """Move the wall clock of a worker or an API: +1 h, −2 h or +1 day."""
    members = [one for one in [*nemesis.system.workers, *nemesis.system.apis] if one.clock is not None]
    clock = nemesis.dice.choice(members).clock if members else None
    if clock is None:
        return False
    clock.jump(nemesis.dice.choice([3600, -7200, 86400]))
    return True


def cancel(nemesis: Nemesis, planned: Planned) -> bool:
    """Cancel a job, whatever it is doing."""
    with nemesis.system.sessions() as session:
        live = list(session.scalars(select(Job.number).where(Job.state.in_(["queued", "placed", "running"]))))
    if not live:
        return False
    number = nemesis.dice.choice(live)
    nemesis.history.note("asked", what="cancel", number=number)
    api = Api(nemesis.system.urls, nemesis.system.token, nemesis.history, planned.seed)
    api.post("cancel", f"/jobs/{number}/cancel")
    api.close()
    return True


def preempt(nemesis: Nemesis, _: Planned) -> bool:
    """Ask up to three running jobs to make room."""
    done = 0
    for attempt in nemesis.running()[:3]:
        with nemesis.system.sessions() as session:
            try:
                steering.preempt(session, attempt.job_number, actor="faults")
                session.commit()
            except StokerError:
                continue  # it has just ended
        nemesis.history.note("asked", what="preempt", number=attempt.job_number)
        done += 1
    return done > 0


def drain(nemesis: Nemesis, planned: Planned) -> bool:
    """Let one worker take nothing new for a while."""

    def turn(draining: bool) -> None:
        with nemesis.system.sessions() as session:
            set_draining(session, name, draining, actor="faults")
            session.commit()

    name = nemesis.dice.choice(nemesis.system.workers).name
    turn(True)
    nemesis.later(1.5 * planned.seconds, lambda: turn(False))
    return True
