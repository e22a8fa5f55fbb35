"""How soon a freed slot is filled when a million jobs are queued in a real PostgreSQL.

python bench/dispatch_scale.py [--jobs 1000000] [--freed 200] [--workers 1] [--asked 20]

The jobs are those of eight teams with five users each, of forty shapes and three classes, and nearly all could run on
the slot. A job ends; the clock runs from the commit of its end to the commit of the placement of the next one. Filling
the table and the fleet comes before that and is told apart.

Then people ask about jobs anywhere in the queue: why one waits, with and without when it will start; the queue; a plan.
"""

import argparse
import gc
import os
import platform
import random
import resource
import shutil
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, bindparam, event, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from stoker.jobs.accounts import Caller
from stoker.jobs.attempts import Ending, claim, finish
from stoker.jobs.database import connect, sessions, upgrade
from stoker.jobs.dispatch import Means, Pass, dispatch
from stoker.jobs.dispatcher import FIRST_DEPTH
from stoker.jobs.explaining import explain, foretell, read_queue, why
from stoker.jobs.fleet import Identity, Offer, OfferedDevice, register
from stoker.jobs.lifecycle import Outcome
from stoker.jobs.models import Attempt, Job, Team, User
from stoker.jobs.prospects import Foresight, foresee
from stoker.jobs.recent_reasons import RecentReasons
from stoker.jobs.spec import parse_spec
from stoker.jobs.window import shape
from stoker.stack.postgres import Postgres

GB = 10**9
GPUS, TEAMS, USERS, SHAPES = 8, 8, 5, 40
LEASE_SECONDS = 36_000.0
PARTS = ("until it is filled", "reading, in PostgreSQL", "writing, in PostgreSQL", "the commit", "all else, in Python")


def fill(session: Session, jobs: int) -> None:
    """Queue so many jobs, one in ten of them high and one low."""
    document = parse_spec({"kind": "train", "train": {"dataset": "digits"}, "resources": {"device": "gpu"}}).document()
    for team in range(TEAMS):
        made = Team(name=f"team-{team}")
        session.add(made)
        session.flush()
        session.add_all(User(name=f"user-{team}-{user}", team_id=made.id) for user in range(USERS))
    session.flush()
    for kind in range(SHAPES):  # all for one GPU: the slot that gets free fits each
        resources = document["resources"] | {"cpus": 1 + kind % 8, "memory": (1 + kind // 8) * GB}
        session.execute(
            text("""
                INSERT INTO jobs (owner_id, team_id, name, kind, spec, tags, priority, shape, state, queued_at)
                SELECT u.id, u.team_id, 'job', 'train', :spec, '{}', (ARRAY[1,1,1,1,1,1,1,1,0,2])[1 + turn % 10],
                    :shape, 'queued', now()
                FROM users u CROSS JOIN generate_series(1, :each) turn
            """).bindparams(bindparam("spec", type_=JSONB)),
            {
                "spec": document | {"resources": resources},
                "shape": shape(resources),
                "each": jobs // SHAPES // (TEAMS * USERS),
            },
        )
    session.commit()
    session.execute(text("ANALYZE"))
    session.commit()


class Bench:
    """A queue, and workers of eight GPUs that claim what is placed."""

    def __init__(self, engine: Engine, workers: int) -> None:
        """Register the workers, and dispatch until all their GPUs are in use and places are promised."""
        self.factory = sessions(engine)
        self.means = Means()
        self.incarnations = {f"worker-{number}": self._offer(f"worker-{number}") for number in range(workers)}
        self.spent = dict.fromkeys(PARTS, 0.0)
        self._writes = False
        _listen(engine, self._note)
        while self.dispatch().more:
            pass
        gc.collect()
        gc.freeze()  # as API and workers do

    def _offer(self, name: str) -> uuid.UUID:
        devices = tuple(OfferedDevice(f"GPU-{name}-{place}", place, "H100", 80 * GB) for place in range(GPUS))
        identity = Identity(uuid.uuid4(), "host", "boot", 1, 0.0, "bench")
        with self.factory() as session:
            register(session, Offer(name, 64_000, 512 * GB, 16, "epyc", devices), identity, LEASE_SECONDS)
            session.commit()
        return identity.id

    def _note(self, statement: str, seconds: float) -> None:
        self._writes = self._writes or statement.startswith("UPDATE jobs")  # the first thing that a placement writes
        self.spent[PARTS[2 if self._writes else 1]] += seconds

    def dispatch(self) -> Pass:
        """One pass, measured; the workers claim what it placed."""
        self.spent, self._writes = dict.fromkeys(PARTS, 0.0), False
        began = time.perf_counter()
        with self.factory() as session:
            done = dispatch(session, self.means, FIRST_DEPTH)
            planned = time.perf_counter()
            session.commit()
        self.spent["the commit"] = time.perf_counter() - planned
        self.spent["all else, in Python"] = planned - began - sum(self.spent[part] for part in PARTS[1:3])
        self.spent["until it is filled"] = time.perf_counter() - began
        found = dict(self.spent)
        for outgoing in done.sent:
            with self.factory() as session:
                claim(session, outgoing.attempt_id, self.incarnations[outgoing.worker], LEASE_SECONDS)
                session.commit()
        self.spent = found
        return done

    def free_one(self) -> dict[str, float]:
        """End a job, fill its slot; seconds by part. A pass that follows finds nothing more to do."""
        with self.factory() as session:
            attempt = session.scalars(select(Attempt).where(Attempt.state == "running").limit(1)).one()
            finish(session, attempt.id, attempt.incarnation_id, Ending(Outcome.SUCCEEDED, result={"accuracy": 0.5}))
            session.commit()
        done = self.dispatch()
        found = self.spent
        if len(done.sent) != 1 or self.dispatch().sent:
            raise SystemExit("a slot got free, and not exactly one job was placed")
        return found


def _listen(engine: Engine, note: Callable[[str, float], None]) -> None:
    def before(connection: Any, _cursor: Any, _statement: str, *_: Any) -> None:
        connection.info["began"] = time.perf_counter()

    def after(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        note(statement, time.perf_counter() - connection.info["began"])

    event.listen(engine, "before_cursor_execute", before)
    event.listen(engine, "after_cursor_execute", after)


def ask(bench: Bench, asked: int) -> None:
    """Print how long it takes to tell people what they ask."""
    foresight = Foresight(reasons=RecentReasons(0.0))  # each asks anew
    chance = random.Random(0)
    with bench.factory() as session:
        numbers = list(session.scalars(text("SELECT number FROM jobs WHERE state = 'queued'")))
        user = session.scalars(select(User).limit(1)).one()
        caller = Caller(user.id, user.name, user.team_id, "team-0", "member", 1)
    spec = parse_spec({"kind": "train", "train": {"dataset": "digits"}, "resources": {"device": "gpu"}})
    spent: dict[str, list[float]] = {}
    starts = 0
    for number in chance.sample(numbers, asked):
        with bench.factory() as session:
            job = session.get_one(Job, number)
            questions: dict[str, Callable[[], Any]] = {
                "why a job waits": lambda session=session, job=job: explain(session, job, foresight),
                "and when it starts": lambda session=session, job=job: why(session, job, foresight),
                "the queue of a team": lambda session=session: read_queue(session, caller, foresight, 50),
                "a job that is thought of": lambda session=session: foretell(session, caller, spec, foresight),
                "those that start next": lambda session=session: foresee(session, foresight),
            }
            for name, question in questions.items():
                began = time.perf_counter()
                answer = question()
                spent.setdefault(name, []).append(1000 * (time.perf_counter() - began))
                starts += name == "and when it starts" and answer.position is not None
                session.commit()
    print("\n| asked | median ms | p95 ms |\n|---|---|---|")
    for name, found in spent.items():
        print(f"| {name} | {statistics.median(found):.0f} | {sorted(found)[int(0.95 * len(found))]:.0f} |")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\nn = {asked}, anywhere in the queue; {starts} of them have a place; at most {most:.0f} MB of memory")


def measure(url: str, workers: int, freed: int, asked: int) -> None:
    """Print the tables."""
    engine = connect(url)
    began = time.perf_counter()
    bench = Bench(engine, workers)
    taken = time.perf_counter() - began
    found = [bench.free_one() for _ in range(freed)]
    with bench.factory() as session:
        queued = session.scalar(text("SELECT count(*) FROM jobs WHERE state = 'queued'"))
    print(f"\n{queued:,} jobs queued; {workers} workers with {workers * GPUS} GPUs, filled in {taken:.0f} s")
    print("\n| one slot gets free | median ms | p95 ms |\n|---|---|---|")
    for part in PARTS:
        ordered = sorted(1000 * one[part] for one in found)
        print(f"| {part} | {statistics.median(ordered):.1f} | {ordered[int(0.95 * len(ordered))]:.1f} |")
    print(f"\nn = {freed}; wall time; parts have their own medians; load {os.getloadavg()[0]:.1f}")
    if asked:
        ask(bench, asked)
    engine.dispose()


def main() -> None:
    """Fill the table, measure, print."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--jobs", type=int, default=1_000_000)
    given.add_argument("--freed", type=int, default=200)
    given.add_argument("--workers", type=int, default=1)
    given.add_argument("--asked", type=int, default=20)
    options = given.parse_args()
    home = Path(tempfile.mkdtemp(prefix="stoker-bench-"))
    home.chmod(0o711)  # as root the server runs under another account
    with Postgres.start(home) as postgres:
        url = postgres.create_database("bench")
        upgrade(url)
        engine = connect(url)
        began = time.perf_counter()
        with sessions(engine)() as session:
            session.execute(text("SET statement_timeout = 0"))
            fill(session, options.jobs)
        engine.dispose()
        print(f"{platform.machine()}, Python {platform.python_version()}, {os.cpu_count()} CPUs")
        print(f"{TEAMS} teams, {TEAMS * USERS} users, {SHAPES} shapes, 3 classes; ", end="")
        print(f"{options.jobs:,} jobs written in {time.perf_counter() - began:.0f} s")
        measure(url, options.workers, options.freed, options.asked)
    shutil.rmtree(home)


if __name__ == "__main__":
    main()
