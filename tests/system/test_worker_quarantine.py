"""Devices that cannot be trusted, against a real database; the devices themselves are made up."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.jobs import fleet
from stoker.jobs.database import connect
from stoker.workers import quarantine as module
from stoker.workers.devices import Fake
from stoker.workers.quarantine import Quarantine
from stoker.workers.supervision import Sight
from stoker.workers.trainers import LOST, UNKILLABLE
from tests.support.queue import Queue

DEVICE = {"uuid": "GPU-1", "model": "NVIDIA Fake", "memory_bytes": 10**10, "bus": "0000:3B:00.0"}
ERROR = {"class": "device_error", "evidence": "CUDA error", "fix": ""}


class Bench:
    """A worker's devices, as a test changes them."""

    def __init__(self, queue: Queue, path: Path) -> None:
        """One device, and nobody on it."""
        self.queue, self.path, self.works = queue, path, True
        self.on_device()
        inventory = Fake(path)
        queue.worker("one", devices=inventory.devices())
        self.quarantine = Quarantine(queue.factory, "one", inventory, lambda _: self.works)

    def on_device(self, *pids: int) -> None:
        """Say who holds memory of the device."""
        self.path.write_text(json.dumps([DEVICE | {"processes": list(pids)}]))

    def examine(self, sight: Sight) -> str | None:
        """Look at the device after a trainer's end."""
        return self.quarantine.examine(["GPU-1"], sight, lambda: False)

    def out_of_use(self) -> list[str]:
        """The devices that are out of use."""
        with self.queue.factory() as session:
            return fleet.quarantined(session, "one")


@pytest.fixture
def bench(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A worker with one device."""
    monkeypatch.setattr(module, "EMPTY_SECONDS", 0.1)
    engine = connect(database_url)
    yield Bench(Queue(engine), tmp_path / "gpus.json")
    engine.dispose()


@pytest.fixture
def ended_pid() -> int:
    """The pid of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_trainer_that_ended_and_left_nothing_changes_nothing(bench: Bench, ended_pid: int) -> None:
    bench.on_device(os.getpid())  # somebody else
    assert bench.examine(Sight(status=1, pid=ended_pid)) is None
    assert bench.out_of_use() == []


def test_a_device_is_out_of_use_while_memory_of_an_ended_trainer_is_held(bench: Bench, ended_pid: int) -> None:
    bench.on_device(ended_pid)
    bench.examine(Sight(status=0, pid=ended_pid))
    bench.quarantine.review()
    assert bench.out_of_use() == ["GPU-1"]
    bench.on_device()
    bench.quarantine.review()
    assert bench.out_of_use() == []


def test_a_device_whose_trainer_cannot_be_killed_is_out_of_use_as_long_as_that_lives(bench: Bench) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as trainer:
        bench.examine(Sight(status=LOST, lost=UNKILLABLE, pid=trainer.pid))
        bench.quarantine.review()
        assert bench.out_of_use() == ["GPU-1"]
        trainer.kill()
    bench.quarantine.review()
    assert bench.out_of_use() == []


def test_a_device_that_a_trainer_calls_broken_stays_in_use_if_a_step_works_on_it(bench: Bench, ended_pid: int) -> None:
    assert bench.examine(Sight(status=1, failure=ERROR, pid=ended_pid)) is None
    assert bench.out_of_use() == []


def test_a_device_that_fails_its_self_test_stays_out_of_use(bench: Bench, ended_pid: int) -> None:
    bench.works = False
    fault = bench.examine(Sight(status=1, failure=ERROR, pid=ended_pid))
    assert fault == "GPU-1: a training step failed on it after its trainer had reported a device error"
    bench.quarantine.review()
    assert bench.out_of_use() == ["GPU-1"]
    bench.works = True
    bench.quarantine.review()
    assert bench.out_of_use() == []


def test_a_hardware_error_that_was_heard_proves_it_though_a_step_works(bench: Bench, ended_pid: int) -> None:
    bench.path.write_text(json.dumps([DEVICE | {"xids": [94]}]))
    fault = bench.examine(Sight(status=1, failure=ERROR, pid=ended_pid))
    assert fault == "GPU-1: hardware error: Xid 94"
    assert bench.out_of_use() == ["GPU-1"]
