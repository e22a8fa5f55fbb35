"""What benches of the whole way run on: a stack of real parts on a home of its own."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from stoker.jobs import accounts
from stoker.jobs.database import connect, sessions, upgrade
from stoker.jobs.models import Job
from stoker.stack.postgres import Postgres
from stoker.stack.redis import Redis


class Stack:
    """PostgreSQL, Redis, the API and one worker, each a process of its own."""

    def __init__(self, home: Path, postgres: Postgres, redis: Redis) -> None:
        """Migrate, make a user, start API and worker."""
        url = postgres.create_database("bench")
        upgrade(url)
        self.home, self.engine = home, connect(url)
        self.sessions = sessions(self.engine)
        with self.sessions() as session:
            token = accounts.bootstrap(session)
            session.commit()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("STOKER_")}
        environ |= {"STOKER_DATABASE_URL": url, "STOKER_BROKER_URL": redis.url, "STOKER_HOME": str(home)}
        environ |= {"STOKER_API_PORT": str(port), "STOKER_WORKER_NAME": "bench", "STOKER_WORKER_DEVICES": "none"}
        self.processes: list[subprocess.Popen[bytes]] = []
        for module in ("stoker.api", "stoker.workers"):
            with (home / f"{module}.log").open("wb") as log:
                command = [sys.executable, "-m", module]
                self.processes.append(subprocess.Popen(command, env=environ, stdout=log, stderr=log))
        self.url, self.token = f"http://127.0.0.1:{port}", token
        headers = {"Authorization": f"Bearer {token}"}
        self.http = httpx.Client(base_url=self.url, headers=headers, timeout=10)
        self.wait(lambda: (home / "run" / "worker-bench.health").exists() and self._ready(), 120)

    def _ready(self) -> bool:
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def wait(self, condition: Callable[[], object], seconds: float) -> None:
        """Wait for a condition; raises SystemExit with the logs when a process died or it took too long."""
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until or any(process.poll() is not None for process in self.processes):
                raise SystemExit("".join(path.read_text()[-3000:] for path in self.home.glob("*.log")))
            time.sleep(0.02)

    def state_of(self, number: int) -> str:
        """The state of a job."""
        with self.sessions() as session:
            return session.get_one(Job, number).state

    def close(self) -> None:
        """Stop everything."""
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            process.wait(30)
        self.engine.dispose()


@contextmanager
def stack() -> Iterator[Stack]:
    """A stack that is ready, and gone afterwards with all that it wrote."""
    with tempfile.TemporaryDirectory(prefix="stoker-bench-", dir="/tmp") as folder:
        home = Path(folder)
        home.chmod(0o711)
        with Postgres.start(home) as postgres, Redis.start(home) as redis:
            made = Stack(home, postgres, redis)
            try:
                yield made
            finally:
                made.close()
