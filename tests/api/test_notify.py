"""Who may be notified is decided at submit; an API that was killed tells after its restart what it had not told."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from stoker.api.app import create_app
from stoker.errors import SettingInvalid
from stoker.jobs import submissions
from stoker.jobs.models import Job, Notification
from stoker.settings import Settings
from tests.api.conftest import Kicks, People, Run
from tests.api.test_process import start
from tests.support.receivers import Hook, hook
from tests.support.server import Server
from tests.support.waiting import wait_for

TRAIN = {"train": {"dataset": "digits"}}


def submit(client: TestClient, *recipients: str) -> tuple[int, str]:
    """Status and, of a refusal, its text."""
    answer = client.post("/api/v1/jobs", json=TRAIN | {"notify": list(recipients)})
    return answer.status_code, answer.json().get("detail", "")


def test_an_inner_address_is_refused_at_submit_and_in_a_plan(
    client: TestClient, settings: Settings, people: People, kicks: Kicks
) -> None:
    assert submit(client, "https://hooks.example.com/x") == (
        422,
        "notify: https://hooks.example.com is not allowed here; an administrator may list it: STOKER_NOTIFY_ALLOW",
    )
    headers = {"Authorization": f"Bearer {people.ada}"}
    with TestClient(create_app(replace(settings, notify="public"), dispatcher=kicks), headers=headers) as other:
        _check_public(other)


def _check_public(client: TestClient) -> None:
    for url in ("http://127.0.0.1/", "http://[::1]/", "http://169.254.169.254/latest", "http://10.0.0.1:8080/"):
        status, text = submit(client, url)
        assert (status, "is not allowed here" in text) == (422, True)
        assert client.post("/api/v1/plan", json=TRAIN | {"notify": [url]}).status_code == 422
    assert submit(client, "https://hooks.example.com/x")[0] == 201
    assert submit(client, "https://hooks.example.com:22/x")[0] == 422
    assert submit(client, "http://hooks.example.com/x")[0] == 422


def test_mail_goes_to_the_address_that_an_administrator_registered(
    settings: Settings, people: People, kicks: Kicks
) -> None:
    mailing = replace(settings, smtp_url="smtp://mail.lab", smtp_from="stoker@lab.org")
    headers = {"Authorization": f"Bearer {people.ada}"}
    with TestClient(create_app(mailing, dispatcher=kicks), headers=headers) as client:
        status, text = submit(client, "ada@lab.org")
        assert (status, "your address: none" in text) == (422, True)
        boss = {"Authorization": f"Bearer {people.admin}"}
        for wrong in ("ada", "ada@lab.org\r\nBcc: eve@x.y"):
            assert client.patch("/api/v1/users/ada", json={"email": wrong}, headers=boss).status_code == 422
        made = client.patch("/api/v1/users/ada", json={"email": "ada@lab.org"}, headers=boss)
        assert made.json()["email"] == "ada@lab.org"
        assert client.patch("/api/v1/users/ada", json={"email": "eve@x.y"}).status_code == 403
        assert submit(client, "ada@lab.org")[0] == 201
        assert submit(client, "eve@lab.org")[0] == 422
        client.patch("/api/v1/users/ada", json={"email": ""}, headers=boss)
        assert submit(client, "ada@lab.org")[0] == 422


def test_what_the_server_cannot_do_is_refused(
    client: TestClient, settings: Settings, people: People, kicks: Kicks
) -> None:
    headers = {"Authorization": f"Bearer {people.ada}"}
    quiet = replace(settings, notify="none")
    with TestClient(create_app(quiet, dispatcher=kicks), headers=headers) as other:
        status, text = submit(other, "https://hooks.example.com/x")
        assert (status, "STOKER_NOTIFY is none" in text) == (422, True)
        assert submit(other)[0] == 201
    listing = replace(settings, notify_allow="@lab.org")
    with TestClient(create_app(listing, dispatcher=kicks), headers=headers) as other:
        status, text = submit(other, "ada@lab.org")
        assert (status, "STOKER_SMTP_URL is not set" in text) == (422, True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"notify_allow": "10.0.0.1/8"}, "STOKER_NOTIFY_ALLOW"),
        ({"smtp_url": "mail.lab"}, "STOKER_SMTP_URL: is not understood"),
        ({"smtp_url": "smtp+plain://u:hunter2@mail.lab"}, "STOKER_SMTP_URL: would send its password in clear"),
        ({"smtp_url": "smtp://u:hunter2@mail.lab"}, "STOKER_SMTP_FROM: is not set"),
        ({"smtp_url": "smtp://u:hunter2@mail.lab", "smtp_from": "Stoker <s@lab>"}, "STOKER_SMTP_FROM"),
        ({"smtp_url": "smtp://u:hunter2@mail.lab:port"}, "STOKER_SMTP_URL"),
    ],
)
def test_settings_that_cannot_work_are_one_line(settings: Settings, changes: dict[str, str], words: str) -> None:
    with pytest.raises(SettingInvalid, match=words) as refused:
        create_app(replace(settings, **changes))  # type: ignore[arg-type]
    assert "hunter2" not in str(refused.value)


def test_the_command_line_asks_for_it(run: Run, server: Server) -> None:
    server.promote()  # before the API has met the user, whom it remembers for a second
    made = run("train", "--dataset", "digits", "--memory", "1GB", "--notify", "https://hooks.example.com/x", "-q")
    assert made.exit_code == 0, made.output
    shown = run("show", made.stdout.strip())
    assert shown.exit_code == 0, shown.output
    assert "https://hooks.example.com/x" in shown.stdout
    refused = run("train", "--dataset", "digits", "--notify", "http://127.0.0.1/")
    assert (refused.exit_code, "not allowed here" in refused.stderr) == (2, True)
    assert run("user", "set", "ada", "--email", "ada@lab.org").exit_code == 0
    assert "ada@lab.org" in run("user", "ls").stdout


@pytest.fixture
def receiver() -> Iterator[Hook]:
    with hook() as server:
        yield server


def _row(factory: sessionmaker[Session]) -> Notification:
    with factory() as session:
        return session.scalars(select(Notification)).one()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_an_end_between_commit_and_send_loses_nothing(
    end: signal.Signals,
    client: TestClient,
    receiver: Hook,
    database_url: str,
    tmp_path: Path,
    factory: sessionmaker[Session],
) -> None:
    number = client.post("/api/v1/jobs", json=TRAIN).json()["number"]
    with factory() as session:  # the end is committed while no process delivers
        job = session.get_one(Job, number)
        job.spec = job.spec | {"notify": [f"http://{receiver.authority}/"]}
        session.flush()
        submissions.cancel(session, number, actor="ada")
        session.commit()
    options = {"STOKER_NOTIFY_ALLOW": receiver.authority, "STOKER_DISPATCH_SECONDS": "0.1"}
    receiver.silent = True
    with _api(database_url, tmp_path, options) as first:
        wait_for(lambda: receiver.received, 30, "the first try to reach the receiver")
        first.send_signal(end)  # after the send, before it is noted
        first.wait(9)  # the receiver would let us wait for 10 s
    receiver.silent = False
    assert _row(factory).sent_at is None
    with factory() as session:
        session.execute(update(Notification).values(due_at=func.now()))
        session.commit()
    with _api(database_url, tmp_path, options):
        wait_for(lambda: _row(factory).sent_at, 30, "the second try to be noted")
    told = [json.loads(request.body) for request in receiver.received]
    assert [one["job"] for one in told] == [number, number]
    assert len({request.headers["Stoker-Delivery"] for request in receiver.received}) == 1, "told apart by their number"


@contextmanager
def _api(database_url: str, folder: Path, options: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """An API of its own, killed at the end."""
    process = start(database_url, folder, folder / "api.log", **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)
