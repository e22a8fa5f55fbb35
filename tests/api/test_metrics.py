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
from stoker.jobs.attempts import Ending
from stoker.jobs.database import connect
from stoker.jobs.failures import Failure
from stoker.jobs.lifecycle import Outcome
from stoker.settings import Settings
from tests.api.conftest import Kicks, People
from tests.support.queue import GPU, LEASE, Queue

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


@pytest.fixture
def queue(database_url: str) -> Iterator[Queue]:
    engine = connect(database_url)
    yield Queue(engine)
    engine.dispose()


def test_what_ran_and_runs_is_told_by_class_worker_and_device(settings: Settings, queue: Queue) -> None:
    incarnation = queue.worker(devices=(GPU,))
    _, failed = queue.running(incarnation, notify=["https://hooks.example.com/x"])
    queue.finish(failed, incarnation, Ending(Outcome.FAILED, failure=Failure("user_error", "ValueError: no", "")))
    queue.finish(queue.running(incarnation)[1], incarnation)
    queue.running(incarnation, resources={"device": "gpu", "cpus": 2, "memory": 10**8})
    for cpus in (3, 3, 4):
        queue.submit(resources={"device": "cpu", "cpus": cpus, "memory": 10**8})
    with TestClient(create_app(replace(settings, metrics_token="of-prometheus"))) as client:
        found = _read(client, "of-prometheus")
    assert found["stoker_attempts", ("user_error", "failed")] == 1  # labels in the order of their names
    assert found["stoker_attempts", ("", "succeeded")] == 1
    assert found["stoker_running_jobs", ("vision",)] == 1
    assert found["stoker_queue_jobs", ("cpus", "vision")] == 3
    assert {labels[0] for name, labels in found if name == "stoker_wait_seconds"} == {"0.5", "0.9", "0.99"}
    assert 0 < found["stoker_lease_seconds", ("one",)] <= LEASE
    assert (found["stoker_worker_cpus", ("one",)], found["stoker_worker_cpus_used", ("one",)]) == (4, 2)
    assert found["stoker_device_used", ("GPU-0", "H100", "one")] == 1
    assert found["stoker_device_quarantined", ("GPU-0", "H100", "one")] == 0
    assert found["stoker_notifications", ()] == 1


def test_the_dashboard_shows_only_what_is_told(settings: Settings, queue: Queue) -> None:
    dashboard = json.loads((Path(__file__).parents[2] / "docker/grafana.json").read_text())
    targets = [target for panel in dashboard["panels"] for target in panel["targets"]]
    queue.running(queue.worker(devices=(GPU,)), resources={"device": "gpu", "memory": 10**8})
    queue.submit()
    with TestClient(create_app(replace(settings, metrics_token="of-prometheus"))) as client:
        answer = client.get("/metrics", headers={"Authorization": "Bearer of-prometheus"})
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert len(targets) >= 10
    for target in targets:
        for asked in re.findall(r"stoker_[a-z_]+", target["expr"]):
            family = families[re.sub(r"_(sum|count)$", "", asked)]
            wanted = set(re.findall(r"[a-z]+", " ".join(re.findall(r"by \(([^)]*)\)", target["expr"]))))
            known = {label for sample in family.samples for label in sample.labels}
            assert wanted <= known or not family.samples, f"{asked} has no label among {wanted}"
