"""Quotas and usage: what a pool can guarantee, who may say so, and what was used."""

from datetime import timedelta

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, text, update
from sqlalchemy.orm import Session, sessionmaker

from stoker.jobs.models import Attempt
from tests.api.conftest import People
from tests.api.test_people import audit
from tests.support.finished_job import FakeWorker, submit


@pytest.fixture
def admin(client: TestClient, people: People) -> TestClient:
    """The client, calling as an administrator."""
    client.headers["Authorization"] = f"Bearer {people.admin}"
    return client


def test_a_pool_guarantees_no_more_than_it_has(admin: TestClient, factory: sessionmaker[Session]) -> None:
    FakeWorker.start(factory, gpus=4)
    made = admin.post("/api/v1/quotas", json={"team": "vision", "gpus": 3, "cpus": 4})
    assert made.json() == {
        "team": "vision",
        "pool": "default",
        "gpus": 3,
        "cpus": 4,
        "gpus_limit": None,
        "cpus_limit": None,
    }
    refused = admin.patch("/api/v1/quotas", json={"team": "nlp", "gpus": 2})
    assert refused.status_code == 422
    assert refused.json()["errors"] == [
        {
            "field": "gpus",
            "problem": "2 is more than pool default can guarantee",
            "fix": "it has 4 GPUs, of which 1 are guaranteed to no other team",
        }
    ]
    assert admin.patch("/api/v1/quotas", json={"team": "nlp", "gpus": 1, "gpus_limit": 2}).json()["gpus_limit"] == 2
    assert admin.patch("/api/v1/quotas", json={"team": "vision", "gpus": 2}).json()["cpus"] == 4
    assert admin.patch("/api/v1/quotas", json={"team": "nlp", "gpus_limit": None}).json()["gpus_limit"] is None
    assert [item["team"] for item in admin.get("/api/v1/quotas?limit=1").json()["items"]] == ["vision"]
    assert admin.delete("/api/v1/quotas?team=nlp").status_code == 204
    assert admin.delete("/api/v1/quotas?team=nlp").status_code == 404
    assert audit(factory)[-2:] == [
        ("quota_changed", "admin", "nlp in default: 1 GPUs, 0 CPUs, at most 2 GPUs → 1 GPUs, 0 CPUs"),
        ("quota_removed", "admin", "nlp in default"),
    ]


MISTAKES: list[tuple[dict[str, object], int, str]] = [
    ({"team": "nlp", "gpus": -1}, 422, "gpus: -1 is out of range; use 0 to 1,000,000"),
    ({"team": "nlp", "gpus": 1e9}, 422, "gpus: 1e+09 is out of range"),
    ({"team": "nlp", "gpus": 1, "gpus_limit": 0.5}, 422, "gpus_limit: 0.5 is less than the 1 that are guaranteed"),
    ({"team": "nlp", "gpus": None}, 422, "gpus: null is not accepted; use 0"),
    ({"team": "nlp", "gpus": "4"}, 422, "gpus"),
    ({"team": "nlp", "pool": "big"}, 404, "no pool big; known: default"),
    ({"team": "npl", "gpus": 1}, 404, "no team npl; known: nlp"),
    ({"gpus": 1}, 422, "team: is missing"),
]


def test_what_cannot_be_is_refused(admin: TestClient) -> None:
    for body, status, words in MISTAKES:
        refused = admin.post("/api/v1/quotas", json=body)
        assert refused.status_code == status, body
        assert words in refused.json()["detail"]


def test_members_see_their_own_quota_and_set_none(client: TestClient, people: People) -> None:
    admin = {"Authorization": f"Bearer {people.admin}"}
    for team in ("vision", "nlp"):
        assert client.post("/api/v1/quotas", json={"team": team, "cpus": 1}, headers=admin).status_code == 200
    assert [item["team"] for item in client.get("/api/v1/quotas").json()["items"]] == ["vision"]
    assert client.post("/api/v1/quotas", json={"team": "vision", "cpus": 9}).status_code == 403
    assert client.delete("/api/v1/quotas?team=vision").status_code == 403


def test_usage_is_counted_from_attempts_within_the_window(
    client: TestClient, people: People, factory: sessionmaker[Session]
) -> None:
    worker = FakeWorker.start(factory, gpus=2)
    submit(factory)
    claimed = worker.claim()
    hours = {"hours": 2}
    with factory() as session:
        began = func.now() - timedelta(**hours)
        session.execute(update(Attempt).values(claimed_at=began, ended_at=None, gpus_milli=2000, cpus_milli=4000))
        session.execute(text("UPDATE teams SET weight = 2 WHERE name = 'vision'"))
        session.commit()
    assert claimed.team == "vision"
    (team,) = client.get("/api/v1/usage?by=team&since=1h").json()["items"]
    assert (team["team"], team["user"], team["jobs"]) == ("vision", None, 1)
    assert team["gpu_seconds"] == pytest.approx(2 * 3600)
    assert team["cpu_seconds"] == pytest.approx(4 * 3600)
    assert (team["share"], team["entitled"]) == (1.0, 0.5)
    (user,) = client.get("/api/v1/usage?by=user&since=7d").json()["items"]
    assert user["user"] == "ada"
    assert user["gpu_seconds"] == pytest.approx(4 * 3600, rel=0.01)
    eve = {"Authorization": f"Bearer {people.eve}"}
    assert client.get("/api/v1/usage", headers=eve).json()["items"] == []
    assert client.get("/api/v1/usage?since=-1d").status_code == 422
    assert client.get("/api/v1/usage?by=moon").status_code == 422
