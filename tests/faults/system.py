"""A whole Stoker of our own, as processes that can be hurt: stores, APIs, workers, and doors that can be shut."""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import NullPool, create_engine, select
from sqlalchemy.orm import Session, sessionmaker

from stoker.jobs.database import sessions, upgrade
from stoker.jobs.models import Incarnation, Worker
from stoker.settings import Settings
from stoker.stack.admin import admin_token
from stoker.stack.ports import choose_port, fetch
from stoker.stack.postgres import Postgres
from stoker.stack.process import Child
from stoker.stack.redis import Redis
from stoker.stack.services import environ_of
from tests.faults import clock
from tests.faults.clock import Clock
from tests.faults.history import History
from tests.faults.network import Network
from tests.faults.points import Points
from tests.faults.proxy import Proxy
from tests.faults.scratch import Scratch
from tests.support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
LEASE_SECONDS = 2.0
ATTEMPTS = 8  # at once on one worker
START_SECONDS = 60.0
# Of our own looks at the database: what we have locked ourselves must not hold us for ever.
PATIENCE = {"connect_timeout": 3, "options": "-c lock_timeout=2s -c statement_timeout=20s"}
# Nothing is lost by these when processes are killed; it would be when the machine is.
POSTGRES = ("fsync=off", "full_page_writes=off", "max_connections=200", "track_commit_timestamp=on")


@dataclass(slots=True)
class Member:
    """A process that may be killed and comes back."""

    name: str
    child: Child
    clock: Clock | None = None
    back_at: float | None = None  # monotonic seconds; None: it should be running


@dataclass(slots=True)
class System:
    """All of it. Every method belongs to the thread that made it: the kernel ties the processes to that."""

    home: Path
    history: History
    points: Points
    postgres: Postgres
    redis: Redis
    settings: Settings
    token: str
    sessions: sessionmaker[Session]
    database_clock: Clock | None
    network: Network
    scratch: Scratch  # of the worker whose disk may become full
    apis: list[Member] = field(default_factory=list)
    workers: list[Member] = field(default_factory=list)
    doors: dict[str, Proxy] = field(default_factory=dict)  # "postgres", "redis": of the last worker
    urls: list[str] = field(default_factory=list)

    @property
    def distant(self) -> Member:
        """The worker that reaches database and broker through doors."""
        return self.workers[-1]

    def tend(self) -> None:
        """Start again what is down and due; note who fell over without being pushed."""
        for member in [*self.apis, *self.workers]:
            if member.child.alive:
                continue
            if member.back_at is None:
                self.history.note("died", who=member.name, fate=member.child.fate())
            elif time.monotonic() < member.back_at:
                continue
            member.child.start()
            member.back_at = None

    def expect_down(self, member: Member, seconds: float) -> None:
        """Say that a member is being taken down, and comes back after so many seconds."""
        member.back_at = time.monotonic() + seconds

    def live(self) -> set[str]:
        """The workers that have an open incarnation by a process that runs now."""
        pids = {member.child.pid for member in self.workers if member.child.alive}
        with self.sessions() as session:
            rows = session.execute(
                select(Worker.name, Incarnation.pid)
                .join(Incarnation, Incarnation.worker_id == Worker.id)
                .where(Incarnation.closed_at.is_(None))
            ).all()
        return {name for name, pid in rows if pid in pids}

    def api_answers(self, url: str) -> bool:
        """Whether an API says that it is ready."""
        host, _, port = url.removeprefix("http://").partition(":")
        return fetch(host, int(port), "/readyz")[0] == 200

    def wait_whole(self) -> None:
        """Wait until everything runs; fails after a minute."""

        def whole() -> bool:
            self.tend()
            return self.live() == {member.name for member in self.workers} and all(map(self.api_answers, self.urls))

        wait_for(whole, START_SECONDS, f"all workers and APIs; see {self.home / 'logs'}")


@contextmanager
def running(
    home: Path, history: History, *, workers: int, apis: int, broken: str | None = None, hurt: bool = True
) -> Iterator[System]:
    """Start a system and stop it at the end, whatever state it is in.

    Args:
        home: An empty folder that the service account can reach.
        history: Receives who died.
        workers: How many; the last one is behind doors, and has its own network where we may make one.
        apis: How many.
        broken: Name of a build of ``tests.faults.broken`` that the workers run.
        hurt: Make what only some faults need: clocks, networks, small disks.
    """
    with ExitStack() as stack:
        points = Points(home / "points")
        points.make()
        library = clock.build(home) if hurt else None
        postgres = Postgres.start(home, POSTGRES)
        stack.callback(postgres.stop, 5)
        redis = Redis.start(home)
        stack.callback(redis.stop, 2)
        upgrade(postgres.url)
        engine = create_engine(postgres.url, poolclass=NullPool, connect_args=PATIENCE)
        database_clock = _clocked_postgres(postgres, home, library)
        network = Network(enabled=hurt)
        stack.callback(network.remove)
        scratch = Scratch(home / "scratch" / "worker-1", enabled=hurt)
        stack.callback(scratch.remove)
        settings = _settings(home, postgres, redis)
        token = admin_token(postgres.url, None)
        system = System(
            home, history, points, postgres, redis, settings, token, sessions(engine), database_clock, network, scratch
        )
        _doors(system, stack)
        _members(system, workers, apis, broken, library)
        for member in [*system.apis, *system.workers]:
            stack.callback(member.child.kill)
            member.child.start()
        system.wait_whole()
        yield system


def _clocked_postgres(postgres: Postgres, home: Path, library: Path | None) -> Clock | None:
    if library is None:
        return None
    found = Clock(library, home / "postgres.clock")
    postgres.child.stop(5)
    postgres.child.environ |= found.environ
    postgres.restart()
    return found


def _settings(home: Path, postgres: Postgres, redis: Redis) -> Settings:
    return Settings(
        database_url=postgres.url,
        broker_url=redis.url,
        home=home,
        lease_seconds=LEASE_SECONDS,
        claim_seconds=12.0,
        resend_seconds=1.0,
        dispatch_seconds=0.5,
        batch_seconds=0.2,
        worker_attempts=ATTEMPTS,
        worker_devices="none",
    )


def _doors(system: System, stack: ExitStack) -> None:
    targets = {"postgres": system.postgres.sockets / ".s.PGSQL.5432", "redis": system.redis.socket}
    for name, target in targets.items():
        door = Proxy(target, system.network.host)
        door.start()
        stack.callback(door.stop)
        system.doors[name] = door


def _members(system: System, workers: int, apis: int, broken: str | None, library: Path | None) -> None:
    for number in range(apis):
        port = choose_port("STOKER_API_PORT", "127.0.0.1", 0)
        system.urls.append(f"http://127.0.0.1:{port}")
        environ = environ_of(system.settings) | {"STOKER_API_PORT": str(port)}
        system.apis.append(_member(system, f"api-{number}", ["-m", "stoker.api"], environ, library))
    for number in range(workers):
        name = f"worker-{number}"
        environ = environ_of(system.settings) | {"STOKER_WORKER_NAME": name}
        arguments = ["-m", "tests.faults.worker", str(system.home / "points")]
        arguments += ["--broken", broken] if broken else []
        if number == workers - 1 and workers > 1:
            environ |= _through_doors(system)
        system.workers.append(_member(system, name, arguments, environ, library))
    if workers > 1:
        distant = system.distant.child
        distant.command = [*system.network.prefix, *distant.command]


def _through_doors(system: System) -> dict[str, str]:
    host, doors = system.network.host, system.doors
    return {
        "STOKER_DATABASE_URL": f"postgresql+psycopg://stoker:{system.postgres.password}@{host}:{doors['postgres'].port}/stoker",
        "STOKER_BROKER_URL": f"redis://:{system.redis.password}@{host}:{doors['redis'].port}/0",
    }


def _member(system: System, name: str, arguments: list[str], environ: dict[str, str], library: Path | None) -> Member:
    shifted = Clock(library, system.home / f"{name}.clock") if library else None
    environ = environ | {"PYTHONPATH": str(ROOT)} | (shifted.environ if shifted else {})
    log = system.home / "logs" / f"{name}.log"
    return Member(name, Child(name, [sys.executable, *arguments], log=log, environ=environ), shifted)
