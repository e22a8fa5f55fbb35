"""A worker and its broker: Redis that goes away, what Flower asks, and what it is told."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from stoker.jobs.lifecycle import State
from stoker.jobs.steering import preempt
from stoker.messages.app import make_app
from stoker.stack.postgres import Postgres
from tests.support.waiting import wait_for
from tests.support.workers import Stage, attempt_id, stage

# NVML's order; the bus has them the other way round.
GPUS = [
    {"uuid": "GPU-2222", "model": "NVIDIA Fake", "memory_bytes": 80 * 10**9, "bus": "0000:B1:00.0"},
    {"uuid": "GPU-1111", "model": "NVIDIA Fake", "memory_bytes": 80 * 10**9, "bus": "0000:3B:00.0"},
]


@pytest.fixture(scope="module")
def watched(postgres: Postgres, template_database: str) -> Iterator[Stage]:
    """A stage with one worker that offers two devices which are not there."""
    with stage(postgres, template_database) as made:
        path = made.home / "gpus.json"
        path.write_text(json.dumps(GPUS))
        made.started("one", worker_devices=f"fake:{path}", cancel_grace_seconds=0.5)
        yield made


class Ears:
    """Hears Celery's events, as Flower does."""

    def __init__(self, broker_url: str) -> None:
        """Listen in a thread."""
        self.heard: list[dict[str, Any]] = []
        self._app = make_app(broker_url)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._app.connection_for_read() as connection:
                    receiver = self._app.events.Receiver(connection, handlers={"*": self.heard.append})
                    with receiver.consumer_context() as (drained, _channel, _consumers):
                        while not self._stopping.is_set():
                            try:
                                drained.drain_events(timeout=0.2)
                            except TimeoutError:
                                continue
            except Exception:  # Redis is away; kombu raises whatever it stumbles over
                self._stopping.wait(0.2)

    def kinds(self, task: str) -> list[str]:
        """The types of the events about a task, in order."""
        return [event["type"] for event in list(self.heard) if event.get("uuid") == task]

    def close(self) -> None:
        """Stop listening."""
        self._stopping.set()
        self._thread.join()


@pytest.fixture
def ears(watched: Stage) -> Iterator[Ears]:
    """Open ears."""
    made = Ears(watched.broker.url)
    wait_for(lambda: [event for event in made.heard if event["type"] == "worker-heartbeat"], 60, "a heartbeat")
    yield made
    made.close()


def test_devices_are_given_by_uuid_in_the_order_of_the_bus(watched: Stage) -> None:
    gpu = {"device": "gpu", "gpus": 2, "cpus": 0.1, "memory": 2 * 10**8, "gpu_memory": None}
    number = watched.odd("describe", resources=gpu)
    assert watched.wait_final(number).state == State.SUCCEEDED
    seen = json.loads(watched.printed(number))
    assert seen["environment"]["CUDA_VISIBLE_DEVICES"] == "GPU-1111,GPU-2222"
    assert seen["environment"]["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    machine = watched.attempts(number)[0].machine
    assert machine is not None
    assert machine.startswith("NVIDIA Fake + ")


def test_flower_is_told_how_a_job_ended(watched: Stage, ears: Ears) -> None:
    good, bad = watched.odd("succeed"), watched.odd("killed")
    for number, last in ((good, "task-succeeded"), (bad, "task-failed")):
        watched.wait_final(number)
        task = str(attempt_id(watched, number))
        told = {"task-sent", "task-received", "task-started", last}
        wait_for(lambda task=task, told=told: told <= set(ears.kinds(task)), 10, str(told))  # type: ignore[misc]
    failed = next(event for event in ears.heard if event["type"] == "task-failed")
    assert "signal 9 (SIGKILL)" in failed["exception"]
    sent = next(event for event in ears.heard if event["type"] == "task-received")
    assert sent["args"] == f"digits-tutorial-cnn · job {good} · attempt 1"
    assert sent["kwargs"] == "user=ada team=vision"
    assert sent["hostname"].startswith("one@")


@pytest.mark.parametrize("terminate", [True, False])
def test_terminate_and_revoke_in_flower_cancel_the_job(watched: Stage, ears: Ears, terminate: bool) -> None:
    number = watched.odd("stubborn")
    watched.wait_progress(number)
    task = str(attempt_id(watched, number))
    make_app(watched.broker.url).control.revoke(task, terminate=terminate, signal="SIGTERM")
    assert watched.wait_final(number).state == State.CANCELLED
    assert watched.job(number).cancel_requested_by == "Flower (shared login)"
    wait_for(lambda: ears.kinds(task)[-1] == "task-revoked", 60, "word of it")
    assert "task-failed" not in ears.kinds(task)


def test_revoking_what_is_unknown_or_over_changes_nothing(watched: Stage) -> None:
    number = watched.odd("succeed")
    watched.wait_final(number)
    control = make_app(watched.broker.url).control
    for task in (str(attempt_id(watched, number)), "no-uuid", "0" * 32):
        control.revoke(task, terminate=True)
    wait_for(lambda: watched.log("one").count("revoke_refused") >= 3, 60, "three refusals")
    assert watched.job(number).state == State.SUCCEEDED


def test_a_preempted_job_goes_on_from_its_checkpoint(watched: Stage) -> None:
    number = watched.odd("obedient")
    watched.wait_progress(number)
    with watched.factory() as session:
        preempt(session, number, actor="ada")
        session.commit()
    assert watched.wait_final(number).state == State.SUCCEEDED
    first, second = watched.attempts(number)
    assert first.outcome == "preempted"
    assert second.resumed_step > 0


def test_a_job_outlives_redis_and_the_next_one_starts_once_it_is_back(watched: Stage, ears: Ears) -> None:
    number = watched.odd("obedient")
    watched.wait_progress(number)
    watched.broker.child.kill()
    wait_for(lambda: "broker_away" in watched.log("one"), 60, "the worker to notice")
    with watched.factory() as session:
        preempt(session, number, actor="ada")  # ends while Redis is away
        session.commit()
    wait_for(lambda: watched.attempts(number)[0].ended_at, 60, "the end of the first attempt")
    first = str(watched.attempts(number)[0].id)
    assert "task-retried" not in ears.kinds(first)
    watched.broker.restart()
    wait_for(
        lambda: watched.attempts(number)[-1].claimed_at and len(watched.attempts(number)) > 1, 60, "the next claim"
    )
    assert watched.wait_final(number).state == State.SUCCEEDED
    wait_for(lambda: "task-retried" in ears.kinds(first), 60, "the last words to be said again")
