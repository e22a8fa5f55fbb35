"""The queue, plans and pools over HTTP: one order, the rules of a submit, who sees what."""

from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from tests.api.conftest import Kicks, People
from tests.api.test_people import audit
from tests.support.finished_job import FakeWorker, submit
from tests.support.queue import spec_document

PART = {"device": "gpu", "gpus": 0.3, "cpus": 1, "memory": 10**8}


def as_user(token: str) -> dict[str, str]:
    """Headers that call as somebody."""
    return {"Authorization": f"Bearer {token}"}


def test_the_queue_and_why_tell_one_order(client: TestClient, people: People, factory: sessionmaker[Session]) -> None:
    low, normal, high = (submit(factory) for _ in range(3))
    for number, level in ((low, "low"), (high, "high")):
        client.patch(f"/api/v1/jobs/{number}", json={"priority": level})
    view = client.get("/api/v1/queue").json()
    assert [item["number"] for item in view["items"]] == [high, normal, low]
    assert [item["why"]["position"] for item in view["items"]] == [1, 2, 3]
    for item in view["items"]:
        assert client.get(f"/api/v1/jobs/{item['number']}/why").json()["position"] == item["why"]["position"]
        assert "position" not in client.get(f"/api/v1/jobs/{item['number']}").json()["reason"]
    assert client.get("/api/v1/queue?limit=1").json()["waiting"] == 3
    others = client.get("/api/v1/queue", headers=as_user(people.eve)).json()
    assert (others["items"], others["waiting"]) == ([], 3)
    assert client.get("/api/v1/queue?limit=-1").status_code == 422


def test_a_plan_keeps_the_rules_of_a_submit(client: TestClient, people: People) -> None:
    urgent = spec_document(priority="urgent")
    assert client.post("/api/v1/plan", json=urgent).json()["position"] == 1
    assert client.post("/api/v1/jobs", json=urgent).status_code == 201
    for path in ("plan", "jobs"):
        refused = client.post(f"/api/v1/{path}", json=urgent)
        assert (refused.status_code, refused.json()["code"]) == (409, "urgent_in_use")
    assert client.post("/api/v1/plan", json=urgent, headers=as_user(people.eve)).status_code == 200
    assert client.post("/api/v1/plan", json=urgent, headers=as_user(people.admin)).status_code == 200
    assert client.get("/api/v1/queue").json()["waiting"] == 1


def test_parts_of_a_gpu_are_allowed_by_administrators(
    client: TestClient, people: People, factory: sessionmaker[Session], kicks: Kicks
) -> None:
    FakeWorker.start(factory, gpus=2)
    part = spec_document(resources=PART)
    refused = client.post("/api/v1/plan", json=part)
    assert refused.status_code == 422
    assert "no pool allows parts" in refused.json()["detail"]
    path, admin = "/api/v1/pools/default", as_user(people.admin)
    assert client.patch(path, json={"fractions": True}).status_code == 403
    for _ in range(2):
        assert client.patch(path, json={"fractions": True}, headers=admin).json()["fractions"] is True
    assert kicks.count == 2
    (pool,) = client.get("/api/v1/pools").json()["items"]
    assert (pool["name"], pool["fractions"], pool["workers"]) == ("default", True, 1)
    assert client.post("/api/v1/plan", json=part).json()["code"] == "next"
    assert client.patch("/api/v1/pools/x", json={"fractions": True}, headers=admin).status_code == 404
    for wrong in ({}, {"fractions": "yes"}, {"fraction": True}):
        assert client.patch(path, json=wrong, headers=admin).status_code == 422
    assert audit(factory)[-1] == ("pool_changed", "admin", "parts of a GPU are allowed in default")
