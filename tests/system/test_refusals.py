"""What keeps a service from starting is one clear line, exit code 2, and shows no secret."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from stoker.api.__main__ import examine
from stoker.errors import OtherSchema, SettingInvalid
from stoker.jobs.database import newest
from stoker.messages.app import make_app, refuse_broker
from stoker.settings import Settings
from stoker.stack.redis import Redis
from stoker.workers.host import refuse_home
from stoker.workers.worker import Worker
from tests.faults.scratch import Scratch

AWAY = "redis://127.0.0.1:1/0"


def ended(command: list[str], **settings: object) -> subprocess.CompletedProcess[str]:
    """Run a module, or ``-c`` and code, until it ends."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("STOKER_")}
    environ |= {f"STOKER_{name.upper()}": str(value) for name, value in settings.items()}
    return subprocess.run(
        [sys.executable, *([] if command[0] == "-c" else ["-m"]), *command],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def words(done: subprocess.CompletedProcess[str]) -> str:
    """The one line for whoever started it, beside what is logged; exit code 2."""
    told = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert (done.returncode, len(told)) == (2, 1), done.stderr
    return told[0]


def set_schema(url: str, revision: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
    engine.dispose()


@pytest.mark.parametrize("module", ["stoker.api", "stoker.workers"])
def test_a_password_that_redis_refuses(module: str, redis_server: Redis, database_url: str, home: Path) -> None:
    wrong = redis_server.url.replace(redis_server.password, "not-this-one")
    shared = {"home": home, "confinement": "best-effort", "worker_devices": "none"}
    done = ended([module], database_url=database_url, broker_url=wrong, **shared)
    assert "STOKER_BROKER_URL: its user or password is refused by Redis" in words(done)
    assert "not-this-one" not in done.stderr
    assert redis_server.password not in done.stderr


def test_a_broker_that_is_away_may_come_back_and_another_kind_never() -> None:
    refuse_broker(make_app(AWAY))
    for url in ("amqp://u:hunter2@127.0.0.1/", "memory://", "nonsense://u:hunter2@x", "127.0.0.1:6379"):
        with pytest.raises(SettingInvalid, match="STOKER_BROKER_URL: is not a URL of Redis") as refused:
            refuse_broker(make_app(url))
        assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("revision", "sentence"),
    [
        ("0001", "the database has schema 0001, this Stoker needs {newest}: run `stoker migrate`"),
        ("zzzz", "the database has schema zzzz, made by a newer Stoker; upgrade this one"),
    ],
)
def test_older_and_newer_tables(database_url: str, home: Path, revision: str, sentence: str) -> None:
    set_schema(database_url, revision)
    settings = Settings(
        database_url=database_url, broker_url=AWAY, home=home, confinement="best-effort", worker_devices="none"
    )
    with pytest.raises(OtherSchema) as refused:
        examine(settings)
    assert str(refused.value) == sentence.format(newest=newest())
    with pytest.raises(OtherSchema) as refused:
        Worker(settings, {}).serve()
    assert str(refused.value) == sentence.format(newest=newest())
    if revision == "zzzz":
        done = ended(["stoker.client.cli", "migrate"], database_url=database_url)
        assert "made by a newer Stoker" in words(done)


def test_a_database_without_tables(empty_database_url: str, home: Path) -> None:
    shared = {"home": home, "confinement": "best-effort", "worker_devices": "none"}
    done = ended(["stoker.workers"], database_url=empty_database_url, broker_url=AWAY, **shared)
    assert words(done) == "stoker worker: the database has no tables yet: run `stoker migrate`"


def test_a_migration_with_a_wrong_password(database_url: str) -> None:
    wrong = database_url.replace("stoker:", "stoker:not-this-one", 1)
    done = ended(["stoker.client.cli", "migrate"], database_url=wrong)
    assert "STOKER_DATABASE_URL: its user or password is refused by the database" in words(done)
    assert "not-this-one" not in done.stderr


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    disk = Scratch(tmp_path / "disk")
    try:
        if not disk.made:
            pytest.skip("a full disk takes root, and a mount")
        disk.fill()
        yield tmp_path / "disk"
    finally:
        disk.remove()


def test_a_home_on_a_full_disk(full: Path) -> None:
    with pytest.raises(SettingInvalid, match=f"STOKER_HOME: {full} cannot be written: No space left on device"):
        refuse_home(full)
    done = ended(["stoker.stack.up"], home=full)
    assert f"STOKER_HOME: {full} cannot be written: No space left on device" in words(done)


def test_a_home_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingInvalid, match="cannot be written: Not a directory"):
        refuse_home(tmp_path / "file" / "home")
    refuse_home(tmp_path / "home")
    assert list((tmp_path / "home").iterdir()) == []


def test_a_worker_says_so_in_one_line(tmp_path: Path, database_url: str) -> None:
    (tmp_path / "file").write_text("")
    shared = {"home": tmp_path / "file" / "home", "confinement": "best-effort", "worker_devices": "none"}
    told = words(ended(["stoker.workers"], database_url=database_url, broker_url=AWAY, **shared))
    assert told.startswith("stoker worker: STOKER_HOME: ")


def test_a_database_that_does_not_come_is_not_waited_for_without_end(tmp_path: Path) -> None:
    modules = "import sys; from stoker.workers import program, worker"
    shared = {"home": tmp_path, "confinement": "best-effort", "worker_devices": "none", "broker_url": AWAY}
    nobody = f"postgresql+psycopg:///stoker?host={tmp_path}"
    at_once = f"{modules}; worker.DATABASE_SECONDS = 0.0; sys.exit(program.main())"
    told = words(ended(["-c", at_once], database_url=nobody, **shared))
    assert told.startswith("stoker worker: the database (STOKER_DATABASE_URL) does not answer")
