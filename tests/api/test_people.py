"""Teams, users and tokens: who may change what, what is refused, and what is written down of it."""

from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from tests.api.conftest import People


@pytest.fixture
def admin(client: TestClient, people: People) -> TestClient:
    """The client, calling as an administrator."""
    client.headers["Authorization"] = f"Bearer {people.admin}"
    return client


def as_user(client: TestClient, token: str) -> dict[str, str]:
    """Headers of somebody else."""
    return {"Authorization": f"Bearer {token}"}


def audit(factory: sessionmaker[Session]) -> list[tuple[str, str, str]]:
    """What was written down: event, actor, reason."""
    with factory() as session:
        rows = session.execute(text("SELECT name, actor, reason FROM events WHERE job_number IS NULL ORDER BY id"))
        return [(row.name, row.actor, row.reason) for row in rows]


def names(answer: Any) -> list[str]:
    return [item["name"] for item in answer.json()["items"]]


def test_teams_are_added_weighed_and_removed(admin: TestClient, factory: sessionmaker[Session]) -> None:
    made = admin.post("/api/v1/teams", json={"name": "robots", "weight": 2.5})
    assert (made.status_code, made.json()["weight"], made.json()["users"]) == (201, 2.5, 0)
    assert admin.patch("/api/v1/teams/robots", json={"weight": 4}).json()["weight"] == 4
    assert admin.patch("/api/v1/teams/robots", json={"weight": 4}).status_code == 200
    assert names(admin.get("/api/v1/teams")) == ["default", "vision", "nlp", "robots"]
    assert admin.delete("/api/v1/teams/robots").status_code == 204
    refused = admin.delete("/api/v1/teams/vision")
    assert (refused.status_code, refused.json()["code"]) == (409, "in_use")
    assert audit(factory) == [
        ("team_added", "admin", "robots, weight 2.5"),
        ("team_changed", "admin", "robots: weight 2.5 → 4"),
        ("team_removed", "admin", "robots"),
    ]


def test_users_are_added_moved_and_shut_out(admin: TestClient, people: People, factory: sessionmaker[Session]) -> None:
    made = admin.post("/api/v1/users", json={"name": "zoe", "team": "nlp"}).json()
    assert (made["team"], made["role"], made["disabled_at"]) == ("nlp", "member", None)
    token = admin.post("/api/v1/tokens", json={"name": "laptop", "user": "zoe", "expires": "30d"}).json()
    assert token["user"] == "zoe"
    zoe = as_user(admin, token["token"])
    assert admin.get("/api/v1/whoami", headers=zoe).json() == {"user": "zoe", "team": "nlp", "role": "member"}
    assert admin.patch("/api/v1/users/zoe", json={"team": "vision", "role": "admin"}).json()["team"] == "vision"
    assert admin.get("/api/v1/whoami", headers=zoe).json() == {"user": "zoe", "team": "vision", "role": "admin"}
    assert admin.patch("/api/v1/users/zoe", json={"disabled": True}).json()["disabled_at"]
    assert admin.get("/api/v1/whoami", headers=zoe).status_code == 401
    assert admin.patch("/api/v1/users/zoe", json={"disabled": False}).json()["disabled_at"] is None
    assert [(name, reason) for name, _, reason in audit(factory)] == [
        ("user_added", "zoe, team nlp, member"),
        ("token_added", "laptop, of zoe"),
        ("user_changed", "zoe to team vision, is admin now"),
        ("user_changed", "zoe may sign in no more"),
        ("user_changed", "zoe may sign in again"),
    ]


def test_the_last_administrator_stays(admin: TestClient, factory: sessionmaker[Session]) -> None:
    for change in ({"role": "member"}, {"disabled": True}):
        refused = admin.patch("/api/v1/users/admin", json=change)
        assert (refused.status_code, refused.json()["code"]) == (409, "last_admin")
    assert admin.get("/api/v1/whoami").json()["role"] == "admin"
    assert admin.patch("/api/v1/users/ada", json={"role": "admin"}).status_code == 200
    assert admin.patch("/api/v1/users/admin", json={"role": "member"}).status_code == 200
    assert admin.patch("/api/v1/users/ada", json={"role": "member"}).status_code == 403
    assert audit(factory)[-1] == ("user_changed", "admin", "admin is member now")


def test_members_see_their_own_team_and_change_nothing(client: TestClient, people: People) -> None:
    assert names(client.get("/api/v1/teams")) == ["vision"]
    assert names(client.get("/api/v1/users")) == ["ada", "bob"]
    assert client.get("/api/v1/tokens?user=bob").status_code == 403
    assert client.get("/api/v1/tokens?user=ada").json()["items"][0]["name"] == "test"
    for method, path, body in (
        ("POST", "/teams", {"name": "mine"}),
        ("PATCH", "/teams/vision", {"weight": 100.0}),
        ("DELETE", "/teams/vision", None),
        ("POST", "/users", {"name": "me2", "team": "vision"}),
        ("PATCH", "/users/ada", {"role": "admin"}),
        ("POST", "/tokens", {"name": "a", "user": "admin"}),
        ("DELETE", "/tokens/1?user=admin", None),
    ):
        refused = client.request(method, f"/api/v1{path}", json=body)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden"), path


MISTAKES: list[tuple[str, str, dict[str, object], int, str]] = [
    ("POST", "/teams", {"name": "Bad Name"}, 422, "name: 'Bad Name' is not a name; use a-z"),
    ("POST", "/teams", {"name": "<b>x"}, 422, "is not a name"),
    ("POST", "/teams", {"name": "a" * 65}, 422, "is not a name"),
    ("POST", "/teams", {"name": "vision"}, 409, "there is a team vision already"),
    ("POST", "/teams", {"name": "a", "weight": 0}, 422, "weight: 0 is out of range; use 0.001 to 1000"),
    ("PATCH", "/teams/vision", {"weight": -1}, 422, "weight: -1 is out of range"),
    ("PATCH", "/teams/vision", {"weight": "2"}, 422, "weight"),
    ("PATCH", "/teams/visoin", {"weight": 2}, 404, "no team visoin; known: vision"),
    ("POST", "/teams", {"name": "a", "wieght": 2}, 422, "wieght: no such field; did you mean weight?"),
    ("POST", "/users", {"name": "z", "team": "nobody"}, 404, "no team nobody"),
    ("POST", "/users", {"name": "ada", "team": "vision"}, 409, "there is a user ada already"),
    ("POST", "/users", {"name": "z", "team": "vision", "role": "root"}, 422, "role"),
    ("PATCH", "/users/nobody", {"role": "admin"}, 404, "no user nobody"),
    ("POST", "/tokens", {"name": "t", "user": "nobody"}, 404, "no user nobody"),
    ("POST", "/tokens", {"name": "t", "expires": "-3d"}, 422, "expires"),
]


def test_what_cannot_be_is_refused_in_a_sentence(admin: TestClient) -> None:
    for method, path, body, status, words in MISTAKES:
        refused = admin.request(method, f"/api/v1{path}", json=body)
        assert refused.status_code == status, body
        assert words in refused.json()["detail"]
