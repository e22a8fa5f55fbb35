"""The Python client against a real API: a job is a future."""

import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from stoker.client.access import remember, resolve
from stoker.client.client import Client
from stoker.client.errors import JobCancelled, JobFailed, NoServer, ServerError, ServerUnreachable, rebuild
from stoker.client.events import Event, parse
from stoker.errors import (
    AlreadyFinal,
    Conflict,
    Forbidden,
    InvalidInput,
    JobNotFound,
    KeyReused,
    NotAuthenticated,
    NotFound,
    StokerError,
    TooLarge,
    Unavailable,
)
from stoker.jobs import accounts
from stoker.jobs.documents import DocumentInvalid
from stoker.jobs.models import Team, User
from stoker.jobs.records import Batch
from stoker.settings import Settings
from tests.api.test_client_uploads import image_folder
from tests.support.server import Server, serve


@pytest.fixture
def server(database_url: str, home: Path) -> Iterator[Server]:
    """A real API."""
    with serve(database_url, home) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """A client of that API."""
    with Client(server.url, server.token) as made:
        yield made


def small(client: Client, **fields: Any) -> int:
    """Submit a small job; its number."""
    return client.train(**{"dataset": "digits", "memory": 10**8, **fields}).number


def test_a_job_is_a_future(server: Server, client: Client) -> None:
    job = client.train(dataset="digits", epochs=3, name="first", memory=10**8)
    assert (job.state, job.name, job.position) == ("queued", "first", 1)
    attempt = server.start()
    heard: list[Event] = []
    reader = threading.Thread(target=lambda: heard.extend(job.events()))
    reader.start()
    progress = {"epoch": 1, "epochs": 3, "step": 10, "steps": 30}
    server.report(attempt, Batch(progress=progress, metrics={"loss": ([5, 10], [2.0, 1.5])}, log="hello\n"))
    server.succeed(attempt)
    result = job.result(timeout=20)
    reader.join(20)
    assert (result.accuracy, result.test_images, result.per_class["dog"]) == (0.75, 4, 0.5)
    assert heard[-1].kind == "end"
    assert heard[-1].data["state"] == "succeeded"
    assert {"state", "metric", "log", "end"} <= {event.kind for event in heard}
    assert job.metrics("loss").values == [2.0, 1.5]
    assert job.metrics("unknown").steps == []
    assert list(job.metrics()) == ["loss"]
    assert "".join(job.logs()) == "hello\n"
    assert [item["name"] for item in job.history()][-1] == "succeed"
    assert [item["outcome"] for item in job.attempts()] == ["succeeded"]
    found = job.predictions(wrong=True)
    assert (found.count, len(found), found.accuracy) == (4, 1, 0.75)
    assert [(item.label, item.predicted, item.correct) for item in found] == [("dog", "cat", False)]
    assert job.why()["code"] == "succeeded"
    with pytest.raises(NotFound):
        _ = job.checkpoints.latest


def test_a_failure_raises_with_the_remote_traceback(server: Server, client: Client) -> None:
    job = client.job(small(client))
    server.fail(server.start())
    with pytest.raises(JobFailed, match="ValueError: no") as caught:
        job.result(timeout=20)
    assert caught.value.failure_class == "user_error"


def test_a_cancelled_job_raises_and_cancelling_is_idempotent(server: Server, client: Client) -> None:
    job = client.job(small(client))
    assert job.cancel().state == "cancelled"
    job.cancel()
    with pytest.raises(JobCancelled):
        job.result(timeout=20)
    ended = client.job(small(client))
    server.succeed(server.start())
    with pytest.raises(AlreadyFinal, match="succeeded"):
        ended.cancel()


def test_a_move_that_the_state_forbids_is_a_conflict(server: Server, client: Client) -> None:
    job = client.job(small(client))
    with pytest.raises(Conflict, match="only a running job") as waits:
        job.preempt()
    server.start()
    with pytest.raises(Conflict, match="stoker preempt") as runs:
        job.hold()
    assert (waits.value.code, runs.value.code) == ("not_running", "preempt_first")


def test_the_place_in_the_queue_is_known_after_a_submit(server: Server, client: Client) -> None:
    assert [client.train(dataset="digits", memory=10**8).position for _ in range(2)] == [1, 2]
    server.queue.dispatch()
    assert client.job(1).position is None


def test_a_job_that_is_found_by_its_name_tells_why_it_waits_too(server: Server, client: Client) -> None:
    number = small(client, name="named")
    by_number, by_name = client.job(number).document, client.job("named").document
    assert by_name["reason"]["sentence"]
    assert by_name["reason"] == by_number["reason"]


def test_waiting_ends_with_the_timeout_and_the_job_goes_on(server: Server, client: Client) -> None:
    job = client.job(small(client))
    with pytest.raises(TimeoutError):
        job.result(timeout=0.3)
    assert job.state == "queued"


def test_the_same_key_gives_the_same_job(server: Server, client: Client) -> None:
    assert small(client, key="a") == small(client, key="a")
    with pytest.raises(KeyReused):
        small(client, key="a", epochs=7)
    assert small(client) != small(client)


def test_lists_are_paged_and_names_mean_the_latest(server: Server, client: Client) -> None:
    numbers = [small(client, name=name) for name in ("a", "b", "a", "a", "c")]
    assert [job.number for job in client.jobs(limit=2)] == numbers[::-1]
    assert [job.number for job in client.jobs(name="a", limit=1)] == [numbers[3], numbers[2], numbers[0]]
    assert client.job("a").number == numbers[3]
    assert client.job(str(numbers[1])).name == "b"
    assert [job.number for job in client.jobs(state=("running", "failed"))] == []
    with pytest.raises(NotFound):
        client.job("nobody")
    with pytest.raises(JobNotFound):
        client.job(10**9)


def test_errors_of_the_server_arrive_as_their_own_classes(server: Server, client: Client) -> None:
    with Client(server.url, "stk_" + "x" * 43) as stranger, pytest.raises(NotAuthenticated):
        stranger.whoami()
    with pytest.raises(InvalidInput, match="nowhere") as refused:
        small(client, dataset="nowhere")
    assert refused.value.field == "train.dataset"
    with pytest.raises(JobNotFound) as caught:
        client.job(10**9)
    again = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(again, NotFound)
    assert str(again) == str(caught.value)
    with pytest.raises(InvalidInput, match="state"):
        list(client.jobs(state="sleeping"))


def test_a_wrong_spec_is_refused_before_anything_is_sent() -> None:
    with Client("http://127.0.0.1:9", "stk_x") as nowhere, pytest.raises(DocumentInvalid, match=r"did you mean epochs"):
        nowhere.train(dataset="digits", epcohs=3)


def test_an_unreachable_server_has_its_own_error() -> None:
    with Client("http://127.0.0.1:9", "stk_x") as nowhere, pytest.raises(ServerUnreachable, match="stoker up"):
        nowhere.whoami()


@pytest.mark.parametrize("code", ["invalid", "unrunnable", "setting_invalid", "invalid_document"])
def test_invalid_input_keeps_field_problem_and_fix(code: str) -> None:
    error = rebuild(422, {"code": code, "detail": "x", "errors": [{"field": "a", "problem": "b", "fix": "c"}]})
    assert isinstance(error, InvalidInput)
    assert (error.field, error.problem, error.fix) == ("a", "b", "c")


def test_an_unknown_code_is_a_stoker_error() -> None:
    error = rebuild(599, {"code": "from_the_future", "detail": "it is full"})
    assert isinstance(error, ServerError)
    assert "it is full" in str(error)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, NotAuthenticated), (403, Forbidden), (404, NotFound), (409, Conflict), (413, TooLarge), (503, Unavailable)],
)
def test_an_unknown_code_gives_the_class_of_its_status(status: int, kind: type[StokerError]) -> None:
    error = rebuild(status, {"code": "from_the_future", "detail": "a sentence"})
    assert isinstance(error, kind)
    assert (error.code, str(error)) == ("from_the_future", "a sentence")
    assert str(pickle.loads(pickle.dumps(error))) == "a sentence"
    field = {"field": "a", "problem": "b", "fix": "c"}
    invalid = rebuild(422, {"code": "from_the_future", "detail": "x", "errors": [field]})
    assert isinstance(invalid, InvalidInput)
    assert invalid.field == "a"


def test_a_folder_is_uploaded_once(server: Server, client: Client, tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "data")
    sent: list[tuple[int, int]] = []
    made = client.upload_dataset("pets", folder, progress=lambda done, total: sent.append((done, total)))
    assert sent[-1][0] == sent[-1][1] == made["bytes"]
    assert made["classes"] == ["cat", "dog"]
    sent.clear()
    assert client.upload_dataset("pets", folder, progress=lambda *_: sent.append((0, 0)))["digest"] == made["digest"]
    assert sent == []
    assert [item["name"] for item in client.datasets()] == ["pets"]
    assert small(client, dataset="pets") > 0


def test_an_administrator_uploads_what_another_team_has(server: Server, client: Client, tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "data")
    client.upload_dataset("pets", folder)
    with server.queue.factory() as session:
        token = add_admin(session)
        session.commit()
    with Client(server.url, token) as admin:
        made = admin.upload_dataset("pets", folder)
        assert (made["team"], made["owner"]) == ("ops", "root")
        assert sorted(item["team"] for item in admin.datasets()) == ["ops", "vision"]


def add_admin(session: Session) -> str:
    """An administrator of a team of their own; the token."""
    team = Team(name="ops")
    session.add(team)
    session.flush()
    user = User(name="root", team_id=team.id, role="admin")
    session.add(user)
    session.flush()
    return accounts.add_token(session, user, "test")


def test_events_are_parsed_as_the_standard_says() -> None:
    lines = [
        ": comment",
        "id: 1-2",
        "event: log",
        'data: {"a":',
        "data: 1}",
        "",
        "data: no json",
        "",
        "event: end",
        "data: {}",
        "",
    ]
    assert list(parse(lines)) == [Event("log", {"a": 1}, "1-2"), Event("end", {}, "1-2")]


def test_a_token_in_a_file_is_used_for_its_own_address_only(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    settings = Settings(home=home)
    with pytest.raises(NoServer):
        resolve(settings)
    path = remember("http://team:1/", "stk_team")
    assert path.stat().st_mode & 0o777 == 0o600
    assert (resolve(settings).url, resolve(settings).token) == ("http://team:1", "stk_team")
    (home / "url").write_text("http://127.0.0.1:2\n")
    (home / "token").write_text("stk_here\n")
    assert resolve(settings).token == "stk_here"
    assert resolve(settings, "http://team:1").token == "stk_team"
    assert resolve(settings, "http://elsewhere:3").token is None
    assert resolve(Settings(home=home, url="http://team:1", token="stk_env")).token == "stk_env"
    assert "stk_" not in repr(resolve(settings))
    with pytest.raises(InvalidInput, match="not an address"):
        resolve(settings, "ftp://team")
