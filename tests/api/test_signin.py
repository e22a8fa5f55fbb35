"""Nothing but health answers without a token, and nobody sees what belongs to another team."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from stoker.api.health import ADDRESSES
from tests.api.conftest import People
from tests.support.finished_job import FakeWorker, finished

FILLED = {"path": "a", "code": "a", "number": "1", "index": "0", "checkpoint_id": "1", "name": "w1", "token_id": "1"}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def walk(routes: list[object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every (method, path) of an application, those of included routers too."""
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            yield from walk(included.routes, prefix + route.include_context.prefix)  # type: ignore[attr-defined]
        else:
            assert hasattr(route, "methods"), f"an unknown kind of route: {route}"
            yield from ((method, prefix + route.path) for method in route.methods)  # type: ignore[attr-defined]


def test_every_route_wants_a_token(app: FastAPI, stranger: TestClient) -> None:
    found = list(walk(list(app.routes)))
    guarded = [(method, path) for method, path in found if path not in ADDRESSES]
    assert len(guarded) >= 25
    assert ("POST", "/api/v1/jobs") in guarded
    assert ("GET", "/api/v1/openapi.json") in guarded
    for method, path in guarded:
        answer = stranger.request(method, path.replace(":path}", "}").format(**FILLED))
        assert answer.status_code == 401, (method, path)
        assert method == "HEAD" or answer.json()["code"] == "not_authenticated", (method, path)  # it has no body
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ADDRESSES)
def test_health_is_told_to_everybody(stranger: TestClient, path: str) -> None:
    assert stranger.get(path).status_code == 200
    assert stranger.head(path).status_code == 200


WRONG = [
    b"",
    b"Bearer",
    b"Bearer ",
    b"Bearer stk_",
    b"Basic YTpi",
    b"Token stk_" + b"a" * 43,
    b"Bearer stk_" + b"a" * 43,
    b"Bearer " + b"a" * 1_000_000,
    "Bearer stk_ümlaut".encode(),
    b"Bearer stk_\xff\xfe",
    b"Bearer a b c",
]


def test_a_wrong_token_is_401(client: TestClient) -> None:
    for header in WRONG:
        answer = client.get("/api/v1/whoami", headers={b"Authorization": header})
        assert answer.status_code == 401, header[:50]


def test_a_token_in_the_address_is_no_token(stranger: TestClient, people: People) -> None:
    assert stranger.get(f"/api/v1/whoami?token={people.ada}").status_code == 401


def test_whoami(client: TestClient, people: People) -> None:
    assert client.get("/api/v1/whoami").json() == {"user": "ada", "team": "vision", "role": "member"}
    admin = client.get("/api/v1/whoami", headers=bearer(people.admin)).json()
    assert admin == {"user": "admin", "team": "default", "role": "admin"}


def test_a_token_is_made_listed_and_revoked(client: TestClient) -> None:
    made = client.post("/api/v1/tokens", json={"name": "laptop"}).json()
    second = bearer(made["token"])
    assert client.get("/api/v1/whoami", headers=second).json()["user"] == "ada"
    listed = client.get("/api/v1/tokens").json()["items"]
    page = client.get("/api/v1/tokens?limit=1").json()
    assert page["items"] == listed[:1]
    assert client.get(f"/api/v1/tokens?limit=1&cursor={page['next']}").json() == {"items": listed[1:], "next": None}
    assert [one["name"] for one in listed] == ["laptop", "test"]
    assert made["token"] not in str(listed)
    assert client.delete(f"/api/v1/tokens/{listed[0]['id']}").status_code == 204
    assert client.get("/api/v1/whoami", headers=second).status_code == 401
    assert client.get("/api/v1/whoami").status_code == 200


def test_nobody_revokes_the_token_of_another(client: TestClient, people: People) -> None:
    bobs = client.get("/api/v1/tokens", headers=bearer(people.bob)).json()["items"][0]["id"]
    assert client.delete(f"/api/v1/tokens/{bobs}").status_code == 404
    assert client.get("/api/v1/whoami", headers=bearer(people.bob)).status_code == 200


READS = [
    "",
    *("/why", "/attempts", "/events", "/metrics", "/logs", "/checkpoints", "/result", "/predictions", "/stream"),
    "/predictions/0/image",
]


def test_what_belongs_to_another_team_does_not_exist(
    client: TestClient, people: People, factory: sessionmaker[Session]
) -> None:
    number = finished(factory, FakeWorker.start(factory))
    checkpoint = client.get(f"/api/v1/jobs/{number}/checkpoints").json()["items"][0]["id"]
    paths = [f"/api/v1/jobs/{number}{read}" for read in READS] + [f"/api/v1/checkpoints/{checkpoint}/content"]
    expected = {people.ada: 200, people.bob: 200, people.admin: 200, people.eve: 404}
    for path in paths:
        for token, status in expected.items():
            assert client.get(path, headers=bearer(token)).status_code == status, path
    for token, count in {people.ada: 1, people.eve: 0, people.admin: 1}.items():
        assert len(client.get("/api/v1/jobs", headers=bearer(token)).json()["items"]) == count
    unknown = client.get("/api/v1/jobs/999", headers=bearer(people.eve)).json()
    foreign = client.get(f"/api/v1/jobs/{number}", headers=bearer(people.eve)).json()
    assert foreign == unknown | {"detail": f"no job {number}"}


def test_who_may_cancel(client: TestClient, people: People) -> None:
    number = client.post("/api/v1/jobs", json={"train": {"dataset": "digits"}}).json()["number"]
    path = f"/api/v1/jobs/{number}/cancel"
    assert client.post(path, headers=bearer(people.eve)).status_code == 404
    assert client.post(path, headers=bearer(people.bob)).status_code == 403
    assert client.get(f"/api/v1/jobs/{number}").json()["state"] == "queued"
    assert client.post(path, headers=bearer(people.admin)).json()["state"] == "cancelled"


@pytest.mark.parametrize("act", ["drain", "resume"])
def test_only_admins_steer_workers(
    client: TestClient, people: People, factory: sessionmaker[Session], act: str
) -> None:
    FakeWorker.start(factory)
    path = f"/api/v1/workers/w1/{act}"
    assert client.post(path).status_code == 403
    assert client.post(path, headers=bearer(people.admin)).status_code == 204
    state = client.get("/api/v1/workers").json()["items"][0]["state"]
    assert state == {"drain": "draining", "resume": "live"}[act]
    assert client.post("/api/v1/workers/nobody/drain", headers=bearer(people.admin)).status_code == 404
