"""The database goes away, hangs, comes back; and what nobody foresaw."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response

from stoker.api.app import create_app
from stoker.jobs import accounts
from stoker.jobs.database import connect, sessions
from stoker.settings import Settings
from stoker.stack.postgres import Postgres
from tests.api.test_process import events, start
from tests.support.services import make_template, quick_postgres
from tests.support.signals import signal_all
from tests.support.waiting import wait_for

DIGITS = {"train": {"dataset": "digits"}}


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    with quick_postgres() as cluster:
        yield cluster


@pytest.fixture
def url(own_postgres: Postgres) -> str:
    return own_postgres.create_database("own", make_template(own_postgres))


@pytest.fixture
def headers(url: str) -> dict[str, str]:
    engine = connect(url)
    with sessions(engine)() as session:
        token = accounts.bootstrap(session)
        session.commit()
    engine.dispose()
    return {"Authorization": f"Bearer {token}"}


def test_an_outage_is_503_at_once_and_over_when_it_is_over(
    own_postgres: Postgres, url: str, headers: dict[str, str], tmp_path: Path
) -> None:
    with TestClient(create_app(Settings(database_url=url, home=tmp_path)), headers=headers) as client:
        assert client.post("/api/v1/jobs", json=DIGITS).status_code == 201
        assert own_postgres.child.pid is not None
        os.kill(own_postgres.child.pid, signal.SIGINT)  # its fast shutdown: every connection is closed
        wait_for(lambda: not own_postgres.child.alive, 30, "PostgreSQL to end")
        for method, path in (("GET", "/api/v1/jobs"), ("GET", "/api/v1/whoami"), ("POST", "/api/v1/jobs")):
            began = time.monotonic()
            answer = wait_for(partial(_refused, client, method, path), 20, "the token to be looked up again")
            assert answer is not None
            assert answer.json()["code"] == "unavailable"
            assert answer.headers["retry-after"] == "2"
            assert time.monotonic() - began < 20  # a connection that waits for the database would take 30
        assert client.get("/healthz").status_code == 200
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["database"]) == (503, "not reached")
        own_postgres.restart()
        wait_for(lambda: client.get("/readyz").status_code == 200, 30, "the API to be ready again")
        wait_for(lambda: client.get("/api/v1/jobs").status_code == 200, 30, "requests to be answered again")
        assert client.get("/api/v1/jobs").json()["items"][0]["number"] == 1


def _refused(client: TestClient, method: str, path: str) -> Response | None:
    answer = client.request(method, path, json=DIGITS if method == "POST" else None)
    return answer if answer.status_code == 503 else None


def listening(log: Path) -> str:
    """Where an API listens, once it does."""
    return str(wait_for(lambda: events(log, "api_listening"), 30, "the API to listen")[0]["url"])


def ready(url: str) -> int:
    """The status of /readyz; 0 while nobody answers."""
    try:
        return httpx.get(f"{url}/readyz").status_code
    except httpx.TransportError:
        return 0


def test_an_api_that_starts_in_an_outage_says_so_and_serves_when_it_is_over(
    own_postgres: Postgres, url: str, tmp_path: Path
) -> None:
    own_postgres.child.kill()
    log = tmp_path / "api.log"
    process = start(url, tmp_path, log)
    try:
        address = listening(log)
        wait_for(lambda: ready(address) == 503, 30, "it to say that it is not ready")
        assert events(log, "database_awaited")
        own_postgres.restart()
        wait_for(lambda: ready(address) == 200, 30, "it to be ready")
        wait_for(lambda: events(log, "database_found"), 30, "it to have looked at the tables")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("came", "sentence"),
    [
        (False, "stoker api: the database (STOKER_DATABASE_URL) does not answer"),
        (True, "stoker api: the database has no tables yet: run `stoker migrate`"),
    ],
)
def test_an_api_whose_database_does_not_come_or_is_not_good_ends_in_one_line(
    own_postgres: Postgres, tmp_path: Path, came: bool, sentence: str
) -> None:
    empty = own_postgres.create_database("empty")
    own_postgres.child.kill()
    patience = 60.0 if came else 0.0
    module = "import sys; from stoker.api import __main__ as api"
    code = f"{module}; api.DATABASE_SECONDS = {patience}; sys.exit(api.main())"
    log = tmp_path / "api.log"
    process = start(empty, tmp_path, log, code=code)
    try:
        listening(log)
        if came:
            own_postgres.restart()
        assert process.wait(60) == 2
    finally:
        process.kill()
        process.wait()
    (said,) = [line for line in log.read_text().splitlines() if not line.startswith("{")]
    assert said.startswith(sentence)


def test_a_database_that_hangs_costs_no_more_than_the_limit(
    own_postgres: Postgres, url: str, headers: dict[str, str], tmp_path: Path
) -> None:
    app = create_app(Settings(database_url=url, home=tmp_path), limit_seconds=0.5)
    with TestClient(app, headers=headers) as client:
        wait_for(lambda: client.get("/api/v1/jobs").status_code == 200, 20, "the first answer in time")
        frozen = _family(own_postgres)
        signal_all(frozen, signal.SIGSTOP)
        try:
            began = time.monotonic()
            answer = client.get("/api/v1/jobs")
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
            assert time.monotonic() - began < 10  # and not for ever
        finally:
            signal_all(frozen, signal.SIGCONT)
        wait_for(lambda: client.get("/api/v1/jobs").status_code == 200, 30, "requests to be answered again")


def _family(postgres: Postgres) -> list[int]:
    parent = postgres.child.pid
    assert parent is not None
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [parent, *map(int, children)]


def test_a_database_without_tables_is_not_ready(empty_database_url: str, tmp_path: Path) -> None:
    app = create_app(Settings(database_url=empty_database_url, home=tmp_path))
    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.get("/readyz").status_code == 503
        token = "stk_" + "a" * 43
        assert client.get("/api/v1/jobs", headers={"Authorization": f"Bearer {token}"}).status_code == 503


def test_what_nobody_foresaw_is_500_and_says_nothing(app: FastAPI, client: TestClient) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("password=hunter2")

    services = app.state.services
    app.state.services = replace(services, kick=broken)
    answer = client.post("/api/v1/jobs", json=DIGITS)
    app.state.services = services
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "hunter2" not in answer.text
    assert "Traceback" not in answer.text
