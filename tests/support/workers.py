"""A stage for workers: a database, a broker, worker processes, and what a test wants to know about its jobs."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import select

from stoker.jobs.database import connect
from stoker.jobs.lifecycle import FINAL
from stoker.jobs.models import Attempt, Checkpoint, Event, Job, LogChunk, Predictions, Result
from stoker.jobs.steering import preempt
from stoker.jobs.submissions import cancel
from stoker.stack.postgres import Postgres
from stoker.stack.redis import Redis
from stoker.workers import processes
from tests.support.queue import Queue
from tests.support.services import short_home
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]
ODD = "tests.support.odd_worker"
REAL = "stoker.workers"
_numbers = itertools.count(1)


class Stage(Queue):
    """A queue, with a broker and workers of its own."""

    def __init__(self, url: str, broker: Redis, home: Path) -> None:
        """Workers find their database at ``url``."""
        super().__init__(connect(url))
        self.url, self.broker, self.home = url, broker, home
        self.workers: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, module: str = ODD, **settings: object) -> subprocess.Popen[bytes]:
        """Start a worker process; its log lies in the home."""
        chosen = {"lease_seconds": 2, "worker_devices": "none", "worker_cpus": 0, "batch_seconds": 0.1} | settings
        environ = {name: os.environ[name] for name in ("PATH", "LANG", "HOME") if name in os.environ}
        environ |= {"PYTHONPATH": str(ROOT), "STOKER_DATABASE_URL": self.url, "STOKER_BROKER_URL": self.broker.url}
        environ |= {"STOKER_HOME": str(self.home), "STOKER_WORKER_NAME": name}
        environ |= {f"STOKER_{key.upper()}": str(value) for key, value in chosen.items()}
        with (self.home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen([sys.executable, "-m", module], env=environ, stdout=log, stderr=log)
        self.workers.append(process)
        return process

    def started(self, name: str, module: str = ODD, **settings: object) -> subprocess.Popen[bytes]:
        """Start a worker process and wait until it is registered and consumes."""
        process = self.start(name, module, **settings)
        health = self.home / "run" / f"worker-{name}.health"
        wait_for(lambda: health.exists() or process.poll() is not None, 60, f"worker {name}")
        assert process.poll() is None, self.log(name)
        return process

    def log(self, name: str) -> str:
        """What a worker wrote so far."""
        return (self.home / f"{name}.log").read_text()

    def odd(self, behaviour: str, **fields: object) -> int:
        """Submit a job for a trainer of ``tests.support.odd_trainers``."""
        from tests.support.odd_trainers import BEHAVIOURS

        seed = [one.__name__ for one in BEHAVIOURS].index(behaviour)
        resources = {"cpus": 0.1, "memory": 10**8}
        return self.submit(**{"train": {"dataset": "digits", "seed": seed}, "resources": resources} | fields)

    def cancel(self, number: int) -> None:
        """Cancel a job, as a user."""
        with self.factory() as session:
            cancel(session, number, actor="ada")
            session.commit()

    def preempt(self, number: int) -> None:
        """Ask a running job to make room, as a user."""
        with self.factory() as session:
            preempt(session, number, actor="ada")
            session.commit()

    def wait_final(self, number: int, seconds: float = 60) -> Job:
        """Wait until a job has ended."""
        wait_for(lambda: self.job(number).state in FINAL, seconds, f"the end of job {number}")
        return self.job(number)

    def wait_progress(self, number: int, seconds: float = 60) -> Attempt:
        """Wait until an attempt at a job has reported progress; returns it."""
        found = wait_for(
            lambda: [one for one in self.attempts(number) if one.progress and not one.ended_at],
            seconds,
            f"progress of job {number}",
        )
        return found[0]

    def notes(self, number: int) -> list[str]:
        """The notes among a job's events."""
        with self.factory() as session:
            return list(session.scalars(select(Event.reason).where(Event.job_number == number, Event.name == "note")))

    def printed(self, number: int) -> str:
        """A job's log."""
        with self.factory() as session:
            chunks = session.scalars(select(LogChunk.text).where(LogChunk.job_number == number).order_by(LogChunk.id))
            return "".join(chunks)

    def found(self, number: int, kind: type[Result] | type[Predictions]) -> Any:
        """A job's result or predictions, if there are any."""
        with self.factory() as session:
            return session.get(kind, number)

    def checkpoints(self, number: int) -> list[Checkpoint]:
        """A job's checkpoints, oldest first."""
        with self.factory() as session:
            found = select(Checkpoint).where(Checkpoint.job_number == number).order_by(Checkpoint.id)
            return list(session.scalars(found))

    def send_raw(self, worker: str, data: bytes | str) -> None:
        """Put anything into a worker's queue."""
        from stoker.messages.app import make_app, queue_of

        with make_app(self.broker.url).connection_for_write() as connection:
            connection.default_channel.client.lpush(queue_of(worker), data)

    def close(self) -> None:
        """End all workers."""
        for process in self.workers:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.workers:
            process.wait(60)  # ten seconds and a step where the machine is free
        self.engine.dispose()


@contextmanager
def stage(postgres: Postgres, template: str) -> Iterator[Stage]:
    """A stage with a migrated database and a Redis of its own."""
    name = f"stage_{os.getpid()}_{next(_numbers)}"
    url = postgres.create_database(name, template)
    with short_home() as home, Redis.start(home) as broker:
        made = Stage(url, broker, home)
        try:
            yield made
        finally:
            made.close()
    postgres.drop_database(name)


def is_gone(pid: int) -> bool:
    """Whether a process has ended."""
    return processes.started(pid) is None


def title_of(pid: int) -> str:
    """What a process calls itself; empty when it has gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def state_letter(pid: int) -> str:
    """R, S, D: it computes, or waits and could; T: stopped; Z: dead; X: gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def tree(pid: int) -> set[int]:
    """A process and all its descendants."""
    return {pid, *processes.descendants(pid)}


def attempt_id(stage: Stage, number: int) -> UUID:
    """The latest attempt at a job."""
    return stage.attempts(number)[-1].id
