"""The main job on real parts: API, PostgreSQL, Redis, a Celery worker and Flower, started as ``stoker up`` does."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import psutil
import pytest
import redis

from stoker.client.client import Client
from stoker.client.errors import JobCancelled
from stoker.client.job import Job
from stoker.errors import NotAuthenticated
from stoker.settings import Settings
from stoker.stack.stack import Stack
from tests.support.services import short_home
from tests.support.waiting import wait_for

pytestmark = pytest.mark.timeout(240)
QUICK = {"dataset": "digits", "model": "fast", "batch_size": 64, "optimizer": {"lr": 0.02, "nesterov": True}}
LONG = {"dataset": "digits", "epochs": 1000}
SMALL = {"cpus": 0.5, "memory": "500MB"}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """One stack for all tests here; a lost message is sent again after half a second."""
    with short_home() as home:
        settings = Settings(
            home=home, worker_name="one", worker_cpus=2, worker_devices="none", resend_seconds=0.5, lease_seconds=8
        )
        running = Stack.start(settings, lambda _: None)
        try:
            yield running
        finally:
            running.stop(quiet=True)


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.url, stack.token) as caller:
        yield caller


def submit(client: Client, **train: object) -> Job:
    return client.submit({"kind": "train", "train": train, "resources": SMALL, "name": "digits"})


def task(stack: Stack, job: Job) -> dict[str, object] | None:
    """What Flower says of the task of a job's latest attempt."""
    user, _, password = stack.flower_auth.partition(":")
    found = httpx.get(
        f"{stack.flower_url}/api/task/info/{job.refresh().document['attempt_id']}", auth=(user, password), timeout=10
    )
    return dict(found.json()) if found.status_code == 200 else None


def in_flower(stack: Stack, job: Job, state: str) -> dict[str, object]:
    def look() -> dict[str, object] | None:
        seen = task(stack, job)
        return seen if seen and seen["state"] == state else None

    return wait_for(lambda: look() or {}, 30, f"Flower to show job {job.number} as {state}")


def until(job: Job, condition: Callable[[dict[str, object]], bool], what: str) -> None:
    wait_for(lambda: condition(job.refresh().document), 60, f"job {job.number} to be {what}")


@contextmanager
def frozen(stack: Stack) -> Iterator[None]:
    """The worker's process, its consumer with it, reads nothing meanwhile."""
    worker = next(
        child for child in psutil.Process().children(recursive=True) if "stoker.workers" in child.cmdline()[-1:]
    )
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(worker.pid, signal.SIGCONT)


def test_digits_reach_95_percent_and_a_count_agrees(stack: Stack, client: Client) -> None:
    job = submit(client, **QUICK, epochs=8, schedule={"name": "one-cycle"})
    result = job.result(timeout=180)
    assert result.accuracy is not None
    assert result.accuracy >= 0.95
    predictions = job.predictions()
    rows = list(predictions)
    assert len(rows) == result.test_images
    assert sum(row.label == row.predicted for row in rows) / len(rows) == pytest.approx(result.accuracy, abs=1e-12)
    assert len(job.metrics("epoch_loss").values) == 8
    assert job.checkpoints.latest.step == job.metrics("epoch_loss").steps[-1]
    seen = in_flower(stack, job, "SUCCESS")
    assert seen["name"] == "stoker.run"
    assert f"digits · job {job.number} · attempt 1" in str(seen["args"])
    assert "user=admin" in str(seen["kwargs"])
    assert str(seen["worker"]).startswith("one@")


def test_a_lost_message_is_sent_again_and_shown_in_flower(stack: Stack, client: Client) -> None:
    broker = redis.Redis.from_url(str(stack.settings.broker_url).replace("redis+socket", "unix").split("?")[0])
    with frozen(stack):
        job = submit(client, **QUICK, epochs=1)
        until(job, lambda document: document["state"] == "placed", "placed")
        wait_for(lambda: broker.delete("worker.one"), 30, "its message")
    assert job.wait(timeout=120) == "succeeded"
    assert job.document["attempt"] == 1  # the same attempt: only its message was new
    assert in_flower(stack, job, "SUCCESS")["uuid"] == job.document["attempt_id"]


def test_nothing_starts_while_the_consumer_is_stopped(stack: Stack, client: Client) -> None:
    with frozen(stack):
        job = submit(client, **QUICK, epochs=1)
        until(job, lambda document: document["state"] == "placed", "placed")
        seen = wait_for(lambda: task(stack, job) or {}, 30, "Flower to know the task")
        assert seen["state"] == "PENDING"
        assert job.refresh().document["started_at"] is None
    assert job.wait(timeout=120) == "succeeded"


def test_two_jobs_run_at_once_and_one_is_cancelled(stack: Stack, client: Client) -> None:
    jobs = [submit(client, **LONG), submit(client, **LONG)]
    for job in jobs:
        until(job, lambda document: bool((document["progress"] or {}).get("step")), "training")  # type: ignore[attr-defined]
    assert [job.refresh().state for job in jobs] == ["running", "running"]
    for job in jobs:
        job.cancel()
        assert job.wait(timeout=15) == "cancelled"
        with pytest.raises(JobCancelled):
            job.result()
        assert in_flower(stack, job, "REVOKED")["uuid"]


def test_a_stranger_is_turned_away(stack: Stack) -> None:
    with Client(stack.url, "stk_nobody") as stranger, pytest.raises(NotAuthenticated):
        list(stranger.jobs())
    assert httpx.get(f"{stack.flower_url}/api/tasks", timeout=10).status_code == 401
