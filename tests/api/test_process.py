"""``python -m stoker.api``: it starts, serves, ends when asked to, and refuses what it must."""

import json
import logging
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import make_url

from stoker.api.__main__ import examine, listen, main
from stoker.errors import SettingInvalid, StackError, Unavailable
from stoker.jobs import accounts
from stoker.jobs.database import connect, sessions
from stoker.settings import Settings
from tests.api.conftest import People
from tests.support.waiting import wait_for


def start(database_url: str, home: Path, log: Path, code: str = "", **settings: str) -> "subprocess.Popen[bytes]":
    """Start the API, or this code of Python in its place."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("STOKER_")}
    environ |= {"STOKER_DATABASE_URL": database_url, "STOKER_HOME": str(home)}
    environ["STOKER_BROKER_URL"] = f"redis+socket://{home}/none.sock"  # nobody is there; nothing here needs it
    with log.open("wb") as file:
        what = ["-c", code] if code else ["-m", "stoker.api"]
        return subprocess.Popen([sys.executable, *what], env=environ | settings, stderr=file)


def events(log: Path, name: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{") and line.endswith("}")]
    return [line for line in lines if line["event"] == name]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "api.log"


@pytest.fixture
def server(database_url: str, people: People, tmp_path: Path, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    process = start(database_url, tmp_path, log)
    yield process
    process.kill()
    process.wait()


def test_it_serves_and_ends_in_order(
    server: "subprocess.Popen[bytes]", people: People, log: Path, database_url: str
) -> None:
    url = wait_for(lambda: events(log, "api_listening"), 30, "the API to listen")[0]["url"]
    wait_for(lambda: _alive(url), 30, "the API to answer")
    bearer = {"Authorization": f"Bearer {people.ada}"}
    made = httpx.post(f"{url}/api/v1/jobs", headers=bearer, json={"train": {"dataset": "digits"}}, timeout=10)
    assert made.status_code == 201
    with httpx.stream("GET", f"{url}/api/v1/jobs/1/stream", headers=bearer, timeout=20) as stream:
        lines = stream.iter_lines()
        assert next(lines) == "event: state"
        began = time.monotonic()
        server.send_signal(signal.SIGTERM)
        assert not any(line.startswith("event: end") for line in lines)
    assert server.wait(20) == 0
    assert time.monotonic() - began < 20  # not the minutes that an open stream could hold it up
    text = log.read_text()
    assert [event["status"] for event in events(log, "http_request") if event["method"] == "POST"] == [201]
    for secret in (people.ada, str(make_url(database_url).password)):
        assert secret not in text


def _alive(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingInvalid, match=f"STOKER_API_PORT: cannot listen on 127.0.0.1:{port}"):
            listen(Settings(api_port=port))


def test_it_is_not_open_to_others_before_there_are_users(database_url: str) -> None:
    closed, opened = Settings(database_url=database_url), Settings(database_url=database_url, api_host="0.0.0.0")
    examine(closed)
    with pytest.raises(StackError, match="there are no users yet"):
        examine(opened)
    engine = connect(database_url)
    with sessions(engine)() as session:
        accounts.bootstrap(session)
        session.commit()
    engine.dispose()
    examine(opened)


def test_a_database_that_cannot_be_asked_is_one_line(
    empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = Settings(database_url=empty_database_url, api_host="0.0.0.0")
    with pytest.raises(StackError, match="run `stoker migrate`"):
        examine(opened)
    nobody = f"postgresql+psycopg:///stoker?host={tmp_path}"
    with pytest.raises(Unavailable, match="STOKER_DATABASE_URL"):
        examine(replace(opened, database_url=nobody))
    monkeypatch.setenv("STOKER_DATABASE_URL", nobody)
    monkeypatch.setenv("STOKER_API_HOST", "0.0.0.0")
    logging_before = logging.getLogger().handlers[:]
    assert main() == 2
    logging.getLogger().handlers[:] = logging_before
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("stoker api: the database (STOKER_DATABASE_URL) does not answer")


@pytest.mark.parametrize("module", ["stoker.api", "stoker.workers"])
def test_a_password_that_the_database_refuses_is_one_line(module: str, tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("STOKER_")}
    with refusing_database() as port:
        environ |= {
            "STOKER_DATABASE_URL": f"postgresql+psycopg://stoker:not-this-one@127.0.0.1:{port}/stoker",
            "STOKER_BROKER_URL": "redis://127.0.0.1:1/0",
            "STOKER_API_HOST": "0.0.0.0",
            "STOKER_HOME": str(tmp_path),
            "STOKER_CONFINEMENT": "best-effort",
        }
        command = [sys.executable, "-m", module]
        ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
    told = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert (ended.returncode, len(told)) == (2, 1), ended.stderr
    assert "STOKER_DATABASE_URL: its user or password is refused by the database" in told[0]
    assert "not-this-one" not in ended.stderr


@contextmanager
def refusing_database() -> Iterator[int]:
    """A server that speaks PostgreSQL's first words and then lets nobody in; gives its port."""
    told = b'SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed for user "stoker"\0\0'

    class Refusal(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while size := int.from_bytes(self.rfile.read(4), "big"):
                asked = self.rfile.read(size - 4)
                if asked[:4] == (196608).to_bytes(4, "big"):  # the start of protocol 3.0, not a question about TLS
                    self.wfile.write(b"E" + (len(told) + 4).to_bytes(4, "big") + told)
                    return
                self.wfile.write(b"N")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Refusal) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


@pytest.mark.parametrize("module", ["stoker.api", "celery -A stoker.messages.flower inspect ping"])
def test_a_setting_that_cannot_be_used_is_one_line(module: str) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("STOKER_")}
    command = [sys.executable, "-m", *module.split()]
    environ["STOKER_BROKER_URL_FILE"] = "/nonexistent"
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "STOKER_BROKER_URL_FILE: cannot read /nonexistent" in ended.stderr


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("STOKER_DATABASE_URL", "", "STOKER_DATABASE_URL: is not set"),
        ("STOKER_DATABASE_URL", "mysql://me:hunter2@host/db", "is not a PostgreSQL URL"),
        ("STOKER_API_PROT", "80", "did you mean STOKER_API_PORT?"),
        ("STOKER_BROKER_URL_FILE", "/nonexistent", "STOKER_BROKER_URL_FILE: cannot read /nonexistent"),
    ],
)
def test_settings_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, sentence: str
) -> None:
    for known in [known for known in os.environ if known.startswith("STOKER_")]:
        monkeypatch.delenv(known)
    monkeypatch.setenv(name, value)
    logging_before = logging.getLogger().handlers[:]
    assert main() == 2
    logging.getLogger().handlers[:] = logging_before
    said = capsys.readouterr().err
    assert sentence in said
    assert "hunter2" not in said
