"""The embedded PostgreSQL and Redis: passwords asked, sockets private, nothing left behind."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import psycopg
import pytest
import redis as redis_client
from celery import Celery
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError
from redis.retry import Retry

from stoker.errors import StackError
from stoker.stack.account import Account, service_account
from stoker.stack.cluster import ELSEWHERE, end_orphan, service_folder
from stoker.stack.postgres import UNSAFE_BUT_QUICK, Postgres
from stoker.stack.redis import Redis
from tests.support.waiting import wait_for
from tests.support.workers import is_gone

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes accounts")


def running(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    return not is_gone(pid)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_data_outlives_the_server(home: Path) -> None:
    with Postgres.start(home, UNSAFE_BUT_QUICK) as first, first.connect() as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
    assert not first.sockets.exists()
    with Postgres.start(home, UNSAFE_BUT_QUICK) as second, second.connect() as connection:
        assert connection.execute("SELECT number FROM kept").fetchone() == (7,)


def test_postgres_asks_for_the_password(postgres: Postgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(host=str(postgres.sockets), user="stoker", password="wrong", dbname="stoker")
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(host=str(postgres.sockets), user="postgres", dbname="postgres")


def test_the_application_is_no_superuser(postgres: Postgres) -> None:
    with postgres.connect() as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("COPY (SELECT 1) TO PROGRAM 'true'")


def test_postgres_listens_on_its_private_socket_alone(postgres: Postgres) -> None:
    assert stat.S_IMODE(postgres.sockets.stat().st_mode) == 0o700
    assert stat.S_IMODE((postgres.data.parent / "password").stat().st_mode) == 0o600
    with postgres.connect() as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)


def test_a_copy_of_a_database_is_a_database_of_its_own(postgres: Postgres) -> None:
    for name, template in (("original", None), ("copy", "original")):
        url = postgres.create_database(name, template).replace("+psycopg", "")
        with psycopg.connect(url) as connection:
            connection.execute(f"CREATE TABLE {name}_table (id int)")
            tables = connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
            ).fetchall()
    assert tables == [("copy_table",), ("original_table",)]
    postgres.drop_database("copy")
    postgres.drop_database("original")


@as_root
def test_root_runs_the_servers_as_somebody_else(postgres: Postgres, redis_server: Redis) -> None:
    account = service_account()
    assert account is not None
    for child in (postgres.child, redis_server.child):
        status = Path(f"/proc/{child.pid}/status").read_text()
        assert f"Uid:\t{account.uid}\t{account.uid}\t{account.uid}" in status
        assert "Groups:\t \n" in status or "Groups:\t\n" in status


@as_root
def test_a_home_out_of_reach_gets_its_data_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    home = tmp_path / "home"
    home.mkdir()
    folder = service_folder(home)
    try:
        assert folder.parent == ELSEWHERE
        assert service_folder(home) == folder
        assert (home / "postgres").readlink() == folder
        monkeypatch.setattr(Account, "can_run", lambda *_: False)  # the programs are out of reach, too
        with Postgres.start(home, UNSAFE_BUT_QUICK) as postgres, Redis.start(home) as server:
            assert postgres.ready()
            assert server.ready()
    finally:
        shutil.rmtree(folder)
    with pytest.raises(StackError, match="which is gone"):
        service_folder(home)


@as_root
def test_programs_out_of_reach_are_copied_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Account, "can_run", lambda *_: False)
    with Postgres.start(home, UNSAFE_BUT_QUICK) as first:
        made = (first.programs / "postgres").stat().st_mtime_ns
        assert first.programs.is_relative_to(home)
    with Postgres.start(home, UNSAFE_BUT_QUICK) as second:
        assert (second.programs / "postgres").stat().st_mtime_ns == made
    with Redis.start(home) as redis:
        assert Path(redis.child.command[0]).parent == home / "postgres"


def test_data_of_another_version_is_refused(home: Path) -> None:
    Postgres.start(home, UNSAFE_BUT_QUICK).stop()
    (home / "postgres" / "data" / "PG_VERSION").write_text("17\n")
    with pytest.raises(StackError, match="belongs to PostgreSQL 17, this Stoker brings 18"):
        Postgres.start(home, UNSAFE_BUT_QUICK)


def test_a_lost_password_is_named(home: Path) -> None:
    Postgres.start(home, UNSAFE_BUT_QUICK).stop()
    (home / "postgres" / "password").unlink()
    with pytest.raises(StackError, match="password is gone"):
        Postgres.start(home, UNSAFE_BUT_QUICK)


def test_a_broken_setting_shows_the_servers_own_words(home: Path) -> None:
    with pytest.raises(StackError, match="unrecognized configuration parameter"):
        Postgres.start(home, ["no_such_setting=1"])


def test_a_pid_file_that_names_a_stranger_is_removed(home: Path) -> None:
    Postgres.start(home, UNSAFE_BUT_QUICK).stop()
    file = home / "postgres" / "data" / "postmaster.pid"
    file.write_text(f"{os.getpid()}\n{file.parent}\n")
    end_orphan(file.parent)
    assert not file.exists()


def test_redis_asks_for_the_password_and_refuses_what_is_dangerous(redis_server: Redis) -> None:
    assert stat.S_IMODE(redis_server.folder.stat().st_mode) == 0o700
    stranger = redis_client.Redis(unix_socket_path=str(redis_server.socket), retry=Retry(NoBackoff(), 0))
    with stranger, pytest.raises(AuthenticationError):
        stranger.ping()
    with redis_server.client() as client:
        for command in (("CONFIG", "GET", "*"), ("FLUSHALL",), ("KEYS", "*"), ("DEBUG", "SLEEP", "0"), ("SHUTDOWN",)):
            with pytest.raises(NoPermissionError):
                client.execute_command(*command)


def test_no_password_is_in_a_command_line(postgres: Postgres, redis_server: Redis) -> None:
    for server in (postgres, redis_server):
        assert server.password not in Path(f"/proc/{server.child.pid}/cmdline").read_text()


def test_celery_speaks_to_redis(redis_server: Redis) -> None:
    app = Celery(broker=redis_server.url)
    with app.connection_for_write() as connection, connection.SimpleQueue("greetings") as queue:
        queue.put({"word": "hello"}, serializer="json")
        message = queue.get(timeout=5)
        message.ack()
        assert message.payload == {"word": "hello"}


def test_a_killed_redis_comes_back_empty_under_the_same_url(redis_server: Redis) -> None:
    url = redis_server.url
    with redis_server.client() as client:
        client.set("a", 1)
    redis_server.child.kill()
    assert not redis_server.ready()
    redis_server.restart()
    with redis_server.client() as client:
        assert client.get("a") is None
    assert redis_server.url == url


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM])
def test_no_server_outlives_its_parent(home: Path, death: signal.Signals) -> None:
    program = f"""
        import sys
        from pathlib import Path
        from stoker.stack.postgres import Postgres
        from stoker.stack.redis import Redis
        postgres, redis = Postgres.start(Path({str(home)!r})), Redis.start(Path({str(home)!r}))
        print(postgres.child.pid, redis.child.pid, postgres.sockets, redis.folder, flush=True)
        sys.stdin.read()
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        first, second, *folders = parent.stdout.readline().split()
        family = [int(first), int(second), *children(int(first))]
        assert all(running(pid) for pid in family)
        parent.send_signal(death)
    wait_for(lambda: not any(running(pid) for pid in family), 30, "the servers to end with their parent")
    for folder in folders:  # a killed parent cannot take its sockets away
        shutil.rmtree(folder)
    with Postgres.start(home) as postgres:
        assert postgres.ready()


def test_a_killed_cluster_opens_again(home: Path) -> None:
    with Postgres.start(home) as postgres:
        with postgres.connect() as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        assert postgres.child.pid is not None
        os.kill(postgres.child.pid, signal.SIGKILL)
        wait_for(lambda: not postgres.child.alive, 30, "the server to end")
        postgres.restart()
        with postgres.connect() as connection:
            assert connection.execute("SELECT number FROM kept").fetchone() == (7,)
