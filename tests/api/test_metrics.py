"""What Prometheus reads: right figures, for administrators and for whoever has the token that was set for it."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.orm import Session, sessionmaker

from stoker.api.app import create_app
from stoker.settings import Settings
from tests.api.conftest import Kicks, People

SPEC = {"version": 1, "kind": "train", "train": {"dataset": "digits"}}


@pytest.fixture
def prometheus(settings: Settings, kicks: Kicks, people: People) -> Iterator[TestClient]:
    chosen = replace(settings, metrics_token="of-prometheus")
    with TestClient(create_app(chosen, dispatcher=kicks)) as client:
        yield client


def _read(client: TestClient, token: str) -> dict[tuple[str, tuple[str, ...]], float]:
    answer = client.get("/metrics", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = [sample for family in text_string_to_metric_families(answer.text) for sample in family.samples]
    return {(sample.name, tuple(sample.labels.values())): sample.value for sample in samples}


def test_those_who_wait_are_counted_by_team_and_reason(prometheus: TestClient, people: People) -> None:
    for token in (people.ada, people.ada, people.eve):
        answer = prometheus.post("/api/v1/jobs", json=SPEC, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 201
    held = answer.json()["number"]
    prometheus.post(f"/api/v1/jobs/{held}/hold", headers={"Authorization": f"Bearer {people.eve}"})
    found = _read(prometheus, "of-prometheus")
    assert found["stoker_queue_jobs", ("no_worker", "vision")] == 2  # labels in the order of their names
    assert found["stoker_queue_jobs", ("held", "nlp")] == 1
    assert found["stoker_queue_oldest_seconds", ("vision",)] >= 0
    assert ("stoker_queue_oldest_seconds", ("nlp",)) not in found, "who is held waits for its owner"
    assert (found["stoker_dispatch_seconds_count", ()], found["stoker_dispatch_seconds_sum", ()]) == (4, 0.5)


def test_only_administrators_and_prometheus_may_read(prometheus: TestClient, people: People) -> None:
    assert _read(prometheus, people.admin)
    for token, status in ((people.ada, 403), ("of-somebody", 401), ("", 401)):
        answer = prometheus.get("/metrics", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == status
    assert prometheus.get("/metrics").status_code == 401


def test_where_no_token_is_set_none_is_good(client: TestClient, people: People, factory: sessionmaker[Session]) -> None:
    assert client.get("/metrics", headers={"Authorization": "Bearer None"}).status_code == 401


def test_the_dashboard_shows_only_what_is_told(prometheus: TestClient) -> None:
    dashboard = json.loads((Path(__file__).parents[2] / "docker/grafana.json").read_text())
    asked = set(re.findall(r"stoker_[a-z_]+", " ".join(t["expr"] for p in dashboard["panels"] for t in p["targets"])))
    answer = prometheus.get("/metrics", headers={"Authorization": "Bearer of-prometheus"})
    told = set(re.findall(r"^# TYPE (stoker_[a-z_]+) ", answer.text, re.MULTILINE))
    assert {re.sub(r"_(sum|count)$", "", name) for name in asked} <= told
