"""A PostgreSQL of our own: the wheel's binaries, one unix socket, a password, no network."""

import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg import sql

from stoker.stack.account import private_folder, service_account
from stoker.stack.cluster import DATABASE, ROLE, end_orphan, open_cluster, reachable_programs, service_folder
from stoker.stack.process import Child, environment

START_SECONDS = 60.0  # recovery after a kill reads the log again
STOP_SECONDS = 20.0
SETTINGS = (
    "cluster_name=stoker",
    "jit=off",  # compiles for longer than our queries run
    "listen_addresses=",
    "max_logical_replication_workers=0",
    "max_wal_senders=0",
    "wal_level=minimal",
)
UNSAFE_BUT_QUICK = ("fsync=off", "full_page_writes=off", "synchronous_commit=off")  # tests: the data may be lost


class Postgres:
    """A running cluster. Its data outlives it; sockets and process do not."""

    def __init__(self, folder: Path, log: Path, settings: Sequence[str]) -> None:
        """Use ``start``."""
        self.data = folder / "data"
        self.account = service_account(self.data)
        self.programs = reachable_programs(folder, self.account) / "bin"
        self.password = open_cluster(folder, self.account, self.programs, quick="fsync=off" in settings)
        self.sockets = private_folder(self.account)
        options = [*SETTINGS, f"unix_socket_directories={self.sockets}", "unix_socket_permissions=0700", *settings]
        self.child = Child(
            "PostgreSQL",
            [str(self.programs / "postgres"), "-D", str(self.data), *(f"--{option}" for option in options)],
            log=log,
            environ=environment(LC_ALL="C"),
            account=self.account,
            stop_signal=signal.SIGINT,  # "fast": sessions are ended, the data is left in good order
            death_signal=signal.SIGINT,
        )

    @classmethod
    def start(cls, home: Path, settings: Sequence[str] = ()) -> Self:
        """Start the cluster of ``home``, made on the first start.

        Args:
            home: Gets ``postgres/`` (or a link to a folder that the service account can reach) and ``logs/``.
            settings: More ``name=value`` of postgresql.conf.

        Raises StackError: it does not start, is of another version, or the home cannot be used.
        """
        logs = home / "logs"
        logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        postgres = cls(service_folder(home), logs / "postgres.log", settings)
        try:
            postgres.restart()
        except BaseException:
            postgres.stop()
            raise
        return postgres

    @property
    def url(self) -> str:
        """The URL of the database ``stoker``, for SQLAlchemy; it contains the password."""
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """The URL of any database of this cluster."""
        return f"postgresql+psycopg://{ROLE}:{self.password}@/{database}?host={self.sockets}"

    def connect(self) -> psycopg.Connection:
        """A connection of its own to the database ``stoker``, in autocommit; the caller closes it."""
        return psycopg.connect(
            host=str(self.sockets), user=ROLE, password=self.password, dbname=DATABASE, autocommit=True
        )

    def ready(self) -> bool:
        """Whether it answers."""
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def launch(self) -> None:
        """Start the process, at first or after it has died, with the same socket and password; does not wait."""
        end_orphan(self.data)
        self.child.start()

    def restart(self) -> None:
        """Start the process, at first or after it has died, and wait until it answers."""
        self.launch()
        self.child.wait_ready(self.ready, START_SECONDS)

    def create_database(self, name: str, template: str | None = None) -> str:
        """Make a database, empty or as a copy of ``template`` (to which nobody may be connected); its URL."""
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(
            sql.Identifier(name), sql.Identifier(template or "template1")
        )
        with self.connect() as connection:
            connection.execute(statement)
        return self.url_of(name)

    def drop_database(self, name: str) -> None:
        """Drop a database; whoever is still connected is thrown out."""
        mine = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND usename = current_user"
        with self.connect() as connection:
            connection.execute(mine, (name,))
            # not FORCE, which fails on an autovacuum that happens to be there, of which we are not the owner
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))

    def stop(self, grace_seconds: float = STOP_SECONDS, hurry: Callable[[], bool] = lambda: False) -> None:
        """Stop it in good order and take its socket away."""
        self.child.stop(grace_seconds, hurry)
        shutil.rmtree(self.sockets, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
