"""``stoker up`` as a user runs it: a process, its children, its files, and what becomes of them."""

import base64
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.services import short_home
from tests.support.waiting import wait_for

START_SECONDS = 60.0
SERVICES = ("PostgreSQL", "Redis", "Tables", "Worker", "API", "Flower")
pytestmark = pytest.mark.timeout(180)


def environ(home: Path, **extra: str) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("STOKER_")}
    return kept | {"STOKER_HOME": str(home), "STOKER_LEASE_SECONDS": "2", "STOKER_WORKER_DEVICES": "none"} | extra


@dataclass
class Up:
    """A running ``stoker up`` whose services are all ready."""

    process: subprocess.Popen[str]
    home: Path
    messages: Path  # its stderr

    @property
    def url(self) -> str:
        return (self.home / "url").read_text().strip()

    @property
    def token(self) -> str:
        return (self.home / "token").read_text().strip()

    @property
    def flower_url(self) -> str:
        return (self.home / "flower-url").read_text().strip()

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def service(self, name: str) -> psutil.Process:
        """A direct child by a word of its command line."""
        found = [child for child in psutil.Process(self.process.pid).children() if name in " ".join(child.cmdline())]
        assert len(found) == 1, [child.cmdline() for child in psutil.Process(self.process.pid).children()]
        return found[0]

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, headers={"Authorization": f"Bearer {self.token}"}, timeout=5)

    def answers(self, path: str) -> bool:
        try:
            return self.get(path).status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def up(home: Path, **extra: str) -> Iterator[Up]:
    messages = home / "messages"
    with (
        messages.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "stoker.stack.up"],
            env=environ(home, **extra), stdout=subprocess.PIPE, stderr=stderr, text=True,
        ) as process,
    ):  # fmt: skip
        assert process.stdout is not None
        running = Up(process, home, messages)
        try:
            assert process.stdout.readline().startswith("API "), messages.read_text()
            yield running
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(30)


def fails(home: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stoker.stack.up"],
        env=environ(home, **extra), capture_output=True, text=True, check=False, timeout=START_SECONDS,
    )  # fmt: skip


def gone(family: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in family)


@pytest.fixture(scope="module")
def life() -> Iterator[Path]:
    """A home that is used by one `up` after the other, as homes are."""
    with short_home() as folder:
        yield folder


def test_up_starts_everything_and_ctrl_c_stops_everything(life: Path) -> None:
    with up(life) as running:
        assert stat.S_IMODE((life / "token").stat().st_mode) == 0o600
        assert running.answers("/readyz")
        assert [worker["state"] for worker in running.get("/api/v1/workers").json()["items"]] == ["live"]
        assert httpx.get(f"{running.url}/api/v1/workers").status_code == 401
        assert httpx.get(running.flower_url).status_code == 401
        password = (life / "flower-password").read_text().strip()
        credentials = base64.b64encode(f"stoker:{password}".encode()).decode()
        assert httpx.get(running.flower_url, headers={"Authorization": f"Basic {credentials}"}).status_code == 200

        (life / "known").write_text(running.token)
        family = running.family()
        assert len(family) >= 5
        second = fails(life)
        assert second.returncode == 1
        assert second.stderr == (
            f"Error: another process (pid {running.process.pid}) already runs a stack in {life}; "
            "stop it, or set STOKER_HOME to another folder\n"
        )
        folders = [Path(line) for line in (life / "sockets").read_text().split()]
        assert len(folders) == 2
        assert all(folder.is_dir() for folder in folders)

        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(30) == 0
        assert gone(family)
        told = running.messages.read_text()
    assert re.findall(r"^(\w+) +ready in \d+\.\d s$", told, re.MULTILINE)[:3] == list(SERVICES[:3])
    assert set(re.findall(r"^(\w+) +ready in", told, re.MULTILINE)) == set(SERVICES)
    assert re.findall(r"^(\w+) +stopped$", told, re.MULTILINE) == ["Flower", "API", "Worker", "Redis", "PostgreSQL"]
    assert not any(folder.exists() for folder in folders)


def test_nothing_outlives_a_killed_up(life: Path) -> None:
    with up(life) as running:
        if (known := life / "known").exists():  # of the `up` before
            assert known.read_text() == running.token
        family = running.family()
        running.process.kill()
        wait_for(lambda: gone(family), 30, "all services to end with `up`")


def test_what_dies_is_started_again(life: Path) -> None:
    with up(life) as running:  # after the killed one: the data must open
        assert running.answers("/api/v1/whoami")
        for name in ("stoker.api", "flower", "redis-server", "bin/postgres", "stoker.workers"):
            killed = running.service(name).pid
            os.kill(killed, signal.SIGKILL)
            wait_for(partial(runs_anew, running, name, killed), 20, f"{name} to be started again")
        wait_for(lambda: running.answers("/readyz"), 20, "the API to answer again")

        def live() -> bool:
            return [worker["state"] for worker in running.get("/api/v1/workers").json()["items"]] == ["live"]

        wait_for(live, 30, "the worker to register anew")
        told = running.messages.read_text()
    assert len(re.findall(r"has ended \(SIGKILL\); starting it again in 0.25 s", told)) >= 5


def runs_anew(running: Up, name: str, killed: int) -> bool:
    try:
        return running.service(name).pid != killed
    except (AssertionError, psutil.NoSuchProcess):
        return False


def test_a_port_in_use_is_named_and_nothing_starts(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        failed = fails(home, STOKER_API_PORT=str(port))
    assert failed.returncode == 2
    assert failed.stderr == (
        f"Error: STOKER_API_PORT: cannot listen on port {port} of 127.0.0.1: it is in use; "
        "set STOKER_API_PORT to another one, or to 0 for any free one\n"
    )
    assert not (home / "postgres").exists()


def test_settings_that_cannot_be_used_end_in_one_line(home: Path) -> None:
    failed = fails(home, STOKER_WORKER_CPU="2")
    assert (failed.returncode, failed.stderr) == (
        2, "Error: STOKER_WORKER_CPU: no such setting; did you mean STOKER_WORKER_CPUS?\n"
    )  # fmt: skip
    failed = fails(home, STOKER_DATABASE_URL="postgresql+psycopg://ann:secret@127.0.0.1:1/stoker")
    assert failed.returncode == 2
    assert failed.stderr.count("\n") <= 2
    assert "STOKER_DATABASE_URL: cannot connect" in failed.stderr
    assert "secret" not in failed.stderr
    failed = fails(home, STOKER_NOTIFY_ALLOW="http://x")  # only the API looks at it
    assert failed.returncode == 2
    assert failed.stderr.splitlines()[-1].startswith("Error: stoker api: STOKER_NOTIFY_ALLOW: 'http://x'")
    (home / "format").write_text("2\n")
    failed = fails(home)
    assert failed.returncode == 2
    assert "has format 2, this Stoker knows 1; upgrade Stoker" in failed.stderr


def test_services_from_outside_are_used(home: Path, database_url: str, redis_url: str) -> None:
    with up(home, STOKER_DATABASE_URL=database_url, STOKER_BROKER_URL=redis_url) as running:
        assert running.answers("/api/v1/whoami")
        assert not (home / "postgres").exists()
        assert len(psutil.Process(running.process.pid).children()) == 3
