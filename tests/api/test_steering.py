"""Hold, release, retry, preempt, as a client and a command line see them."""

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from stoker.jobs.dispatch import dispatch
from tests.api.conftest import Kicks, People
from tests.support.finished_job import FakeWorker, submit


def test_hold_and_release(client: TestClient, factory: sessionmaker[Session], kicks: Kicks) -> None:
    path = f"/api/v1/jobs/{submit(factory)}"
    held = client.post(f"{path}/hold")
    assert (held.status_code, held.json()["reason"]["code"]) == (200, "held")
    assert client.post(f"{path}/release").json()["reason"]["code"] == "no_worker"
    assert kicks.count == 2
    FakeWorker.start(factory).claim()
    refused = client.post(f"{path}/hold")
    assert (refused.status_code, refused.json()["code"]) == (409, "preempt_first")


def test_preempt_only_what_runs(client: TestClient, factory: sessionmaker[Session]) -> None:
    path = f"/api/v1/jobs/{submit(factory)}"
    refused = client.post(f"{path}/preempt")
    assert (refused.status_code, refused.json()["code"]) == (409, "not_running")
    FakeWorker.start(factory).claim()
    assert client.post(f"{path}/preempt").status_code == 200
    assert "preempt_requested" in [event["name"] for event in client.get(f"{path}/events").json()["items"]]


def test_retry_of_a_cancelled_job(client: TestClient, factory: sessionmaker[Session]) -> None:
    path = f"/api/v1/jobs/{submit(factory)}"
    refused = client.post(f"{path}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "move_refused")
    client.post(f"{path}/cancel")
    assert client.post(f"{path}/retry?from=worst").json()["errors"][0]["field"] == "from"
    again = client.post(f"{path}/retry?from=scratch").json()
    assert (again["state"], again["cancel_requested_at"]) == ("queued", None)


def test_a_drain_may_preempt_what_runs_there(
    client: TestClient, factory: sessionmaker[Session], people: People, kicks: Kicks
) -> None:
    admin = {"Authorization": f"Bearer {people.admin}"}
    number = submit(factory)
    FakeWorker.start(factory).claim()
    placed = submit(factory)
    with factory() as session:
        dispatch(session)
        session.commit()
    assert client.post("/api/v1/workers/w1/drain?now=true").status_code == 403
    assert client.post("/api/v1/workers/w1/drain?now=yes", headers=admin).status_code == 422
    assert client.post("/api/v1/workers/w1/drain", headers=admin).status_code == 204
    assert "preempt_requested" not in names(client, number)
    for _ in range(2):
        assert client.post("/api/v1/workers/w1/drain?now=true", headers=admin).status_code == 204
    assert names(client, number).count("preempt_requested") == 1
    waits = client.get(f"/api/v1/jobs/{placed}").json()
    assert (waits["state"], client.get(f"/api/v1/jobs/{number}").json()["state"]) == ("queued", "running")
    assert kicks.count == 2


def test_priority_and_first(client: TestClient, factory: sessionmaker[Session], people: People, kicks: Kicks) -> None:
    one, two = (f"/api/v1/jobs/{submit(factory)}" for _ in range(2))
    changed = client.patch(one, json={"priority": "urgent", "tags": ["now"]}).json()
    assert (changed["priority"], changed["tags"], changed["spec"]["priority"]) == ("urgent", ["now"], "urgent")
    refused = client.patch(two, json={"priority": "urgent"})
    assert (refused.status_code, refused.json()["code"]) == (409, "urgent_in_use")
    admin = {"Authorization": f"Bearer {people.admin}"}
    assert client.patch(two, json={"priority": "urgent"}, headers=admin).status_code == 200
    assert client.post(f"{two}/first").status_code == 200
    assert kicks.count == 3
    for wrong in ({"priority": "top"}, {"prioritty": "low"}, {"name": ""}, {"tags": ["a"] * 51}):
        assert client.patch(one, json=wrong).status_code == 422
    FakeWorker.start(factory).claim()
    started = client.post(f"{two}/first")
    assert (started.status_code, started.json()["code"]) == (409, "not_waiting")


def names(client: TestClient, number: int) -> list[str]:
    """What happened to a job."""
    return [event["name"] for event in client.get(f"/api/v1/jobs/{number}/events").json()["items"]]


@pytest.mark.parametrize("verb", ["cancel", "hold", "release", "preempt", "retry", "first"])
def test_only_the_owner_and_admins_steer(
    client: TestClient, factory: sessionmaker[Session], people: People, verb: str
) -> None:
    path = f"/api/v1/jobs/{submit(factory)}/{verb}"
    assert client.post(path, headers={"Authorization": f"Bearer {people.bob}"}).status_code == 403
    assert client.post(path, headers={"Authorization": f"Bearer {people.eve}"}).status_code == 404
    assert client.post(f"/api/v1/jobs/999/{verb}").status_code == 404


def test_only_the_owner_and_admins_change(client: TestClient, factory: sessionmaker[Session], people: People) -> None:
    path = f"/api/v1/jobs/{submit(factory)}"
    for token, status in ((people.bob, 403), (people.eve, 404), (people.admin, 200)):
        headers = {"Authorization": f"Bearer {token}"}
        assert client.patch(path, json={"priority": "high"}, headers=headers).status_code == status
