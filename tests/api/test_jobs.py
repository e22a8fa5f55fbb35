"""Submit, list, show, cancel, as a client sees them."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from stoker.api.app import create_app
from stoker.settings import Settings
from tests.api.conftest import Kicks, People
from tests.support.finished_job import ACCURACY, FakeWorker, finished, submit

DIGITS = {"train": {"dataset": "digits"}}
HOSTILE = ["<script>alert(1)</script>", '"><img onerror=x>', "{{7*7}}", "${jndi:ldap://x}", "'; DROP TABLE jobs; --"]


def test_submit_answers_with_the_job(client: TestClient, kicks: Kicks) -> None:
    answer = client.post("/api/v1/jobs", json=DIGITS | {"name": "first", "tags": ["demo"], "priority": "high"})
    job = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == job["links"]["self"] == f"/api/v1/jobs/{job['number']}"
    assert (job["name"], job["state"], job["owner"], job["team"]) == ("first", "queued", "ada", "vision")
    assert (job["priority"], job["tags"], job["attempt"], job["progress"]) == ("high", ["demo"], None, None)
    assert job["spec"]["train"]["model"] == "tutorial-cnn"
    assert kicks.count == 1
    shown = client.get(answer.headers["location"]).json()
    assert shown.pop("reason") == {
        "code": "no_worker",
        "sentence": "no worker is live that takes new jobs; see `stoker workers`",
    }
    assert shown == {name: value for name, value in job.items() if name != "reason"}


def test_why(client: TestClient, factory: sessionmaker[Session]) -> None:
    number = submit(factory)
    assert client.get(f"/api/v1/jobs/{number}/why").json()["code"] == "no_worker"
    worker = FakeWorker.start(factory)
    worker.claim()
    told = client.get(f"/api/v1/jobs/{number}/why").json()
    assert (told["code"], told["sentence"], told["position"]) == ("running", "it is running", None)
    assert told["expected"]["end_at"] > told["expected"]["start_at"]


def test_the_same_key_gives_the_same_job(client: TestClient) -> None:
    key = {"Idempotency-Key": "a-1"}
    first = client.post("/api/v1/jobs", json=DIGITS, headers=key)
    again = client.post(
        "/api/v1/jobs",
        content=b'{ "train" : {"dataset":"digits"} }',
        headers=key | {"Content-Type": "application/json"},
    )
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["number"] == first.json()["number"]
    assert again.headers["location"] == first.headers["location"]
    other = client.post("/api/v1/jobs", json=DIGITS | {"name": "other"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
    assert len(client.get("/api/v1/jobs").json()["items"]) == 1


def test_a_key_belongs_to_its_user(client: TestClient, people: People) -> None:
    key = {"Idempotency-Key": "k"}
    mine = client.post("/api/v1/jobs", json=DIGITS, headers=key)
    bobs = client.post("/api/v1/jobs", json=DIGITS, headers=key | {"Authorization": f"Bearer {people.bob}"})
    assert mine.json()["number"] != bobs.json()["number"]


def test_submits_at_once_with_one_key_make_one_job(client: TestClient) -> None:
    def send(_: int) -> tuple[int, int]:
        answer = client.post("/api/v1/jobs", json=DIGITS, headers={"Idempotency-Key": "same"})
        return answer.status_code, answer.json()["number"]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(16)))
    assert sorted(status for status, _ in answers) == [200] * 15 + [201]
    assert len({number for _, number in answers}) == 1


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "ü"])
def test_a_key_that_cannot_be_used(client: TestClient, key: str) -> None:
    answer = client.post("/api/v1/jobs", json=DIGITS, headers={b"Idempotency-Key": key.encode()})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "Idempotency-Key"


def test_a_list_pages_without_gaps(client: TestClient, factory: sessionmaker[Session]) -> None:
    numbers = [submit(factory) for _ in range(5)]
    seen: list[int] = []
    cursor = ""
    while True:
        page = client.get(f"/api/v1/jobs?limit=2{cursor}").json()
        seen += [job["number"] for job in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert seen == numbers[::-1]


def test_filters(client: TestClient, people: People, factory: sessionmaker[Session]) -> None:
    one = submit(factory, name="one", tags=["demo", "50%_\\"])
    two = submit(factory, "bob", name="two")
    client.post(f"/api/v1/jobs/{one}/cancel")

    def numbers(query: str, token: str = people.admin) -> list[int]:
        answer = client.get(f"/api/v1/jobs?{query}", headers={"Authorization": f"Bearer {token}"})
        return [job["number"] for job in answer.json()["items"]]

    assert numbers("state=cancelled") == [one]
    assert numbers("state=cancelled&state=queued") == [two, one]
    assert numbers("owner=bob") == [two]
    assert numbers("team=vision") == [two, one]
    assert numbers("team=vision", people.eve) == []
    assert numbers("tag=demo") == [one]
    assert numbers("tag=50%25_%5C") == [one]
    assert numbers("tag=%25") == []
    assert numbers("name=two") == [two]
    assert numbers("name=t%25") == []


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_data(client: TestClient, name: str) -> None:
    number = client.post("/api/v1/jobs", json=DIGITS | {"name": name, "tags": [name]}).json()["number"]
    answer = client.get(f"/api/v1/jobs/{number}")
    assert (answer.json()["name"], answer.json()["tags"]) == (name, [name])
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_cancel_twice_is_once(client: TestClient, factory: sessionmaker[Session], kicks: Kicks) -> None:
    number = submit(factory)
    for _ in range(2):
        answer = client.post(f"/api/v1/jobs/{number}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    names = [event["name"] for event in client.get(f"/api/v1/jobs/{number}/events").json()["items"]]
    assert names == ["submit", "cancel"]
    assert kicks.count == 2


def test_what_has_ended_cannot_be_cancelled(client: TestClient, factory: sessionmaker[Session]) -> None:
    number = finished(factory, FakeWorker.start(factory))
    answer = client.post(f"/api/v1/jobs/{number}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (409, "already_final")


def test_cancel_of_a_running_job_is_a_request(client: TestClient, factory: sessionmaker[Session]) -> None:
    number = submit(factory)
    FakeWorker.start(factory).claim()
    answer = client.post(f"/api/v1/jobs/{number}/cancel").json()
    assert answer["state"] == "running"
    assert answer["cancel_requested_at"] is not None


def test_a_finished_job_shows_what_it_did(client: TestClient, factory: sessionmaker[Session]) -> None:
    number = finished(factory, FakeWorker.start(factory, "w1"))
    job = client.get(f"/api/v1/jobs/{number}").json()
    assert (job["state"], job["attempt"], job["worker"], job["device"]) == ("succeeded", 1, "w1", "cpu")
    assert job["progress"]["fraction"] == 0.5
    assert job["result"] == {"accuracy": ACCURACY}
    assert job["reason"] is None
    assert job["links"]["flower"] == f"http://flower.lab:5555/task/{job['attempt_id']}"
    attempts = client.get(f"/api/v1/jobs/{number}/attempts").json()["items"]
    assert [(one["attempt"], one["id"], one["outcome"]) for one in attempts] == [(1, job["attempt_id"], "succeeded")]
    events = client.get(f"/api/v1/jobs/{number}/events").json()["items"]
    assert [event["name"] for event in events] == ["submit", "place", "start", "succeed"]


def test_a_job_has_no_link_to_flower_where_its_address_is_not_known(
    settings: Settings, factory: sessionmaker[Session], kicks: Kicks, people: People
) -> None:
    number = finished(factory, FakeWorker.start(factory, "w1"))
    app = create_app(dataclasses.replace(settings, flower_url=None), dispatcher=kicks)
    with TestClient(app, headers={"Authorization": f"Bearer {people.ada}"}) as caller:
        assert caller.get(f"/api/v1/jobs/{number}").json()["links"] == {
            "self": f"/api/v1/jobs/{number}",
            "flower": None,
        }


def test_workers_show_what_is_taken(client: TestClient, factory: sessionmaker[Session], people: People) -> None:
    number = submit(factory, resources={"device": "gpu", "cpus": 2, "memory": "1GB"})
    worker = FakeWorker.start(factory, gpus=2)
    worker.claim()
    shown = client.get("/api/v1/workers").json()["items"][0]
    assert (shown["name"], shown["state"], shown["host"], shown["version"]) == ("w1", "live", "host", "0.1")
    assert (shown["cpus"], shown["cpus_used"], shown["memory_used_bytes"]) == (8, 2, 10**9)
    assert (shown["attempts"], shown["jobs"]) == (1, [number])
    assert sorted(device["used_milli"] for device in shown["devices"]) == [0, 1000]
    foreign = client.get("/api/v1/workers", headers={"Authorization": f"Bearer {people.eve}"}).json()["items"][0]
    assert foreign["jobs"] == []


def test_the_description_is_complete(client: TestClient) -> None:
    schema = client.get("/api/v1/openapi.json").json()
    assert schema["paths"]["/api/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert "Resources" in schema["components"]["schemas"]
    assert "/healthz" not in schema["paths"]

    def references(value: object) -> list[str]:
        if isinstance(value, dict):
            mine = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return mine + [found for inner in value.values() for found in references(inner)]
        return [found for inner in value for found in references(inner)] if isinstance(value, list) else []

    for reference in references(schema):
        assert reference.removeprefix("#/components/schemas/") in schema["components"]["schemas"]


def test_network_that_the_administrator_forbids_is_refused_at_submit(settings: Settings, people: People) -> None:
    closed = create_app(dataclasses.replace(settings, network="none"), dispatcher=Kicks())
    with TestClient(closed, headers={"Authorization": f"Bearer {people.ada}"}) as ada:
        for route in ("/api/v1/jobs", "/api/v1/plan"):
            answer = ada.post(route, json=DIGITS | {"network": "open"})
            assert answer.status_code == 422
            assert "STOKER_NETWORK is none" in answer.text
        assert ada.post("/api/v1/jobs", json=DIGITS).status_code == 201
