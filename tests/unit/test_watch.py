"""Devices under watch, made up in a file: strangers, errors of the hardware, and devices that are gone."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stoker.workers import watch
from stoker.workers.devices import Fake, Seen, limit_memory
from stoker.workers.runs import Runs
from stoker.workers.watch import DeviceWatch, at_start, fault_of, foreign

GB = 10**9
DEVICE = {"model": "NVIDIA Fake", "memory_bytes": 80 * GB, "bus": "0000:3B:00.0"}
STRANGER = os.getppid()  # a process that exists, and is not below this one


class Bench:
    """Two devices, the runs that have them, and what was judged of each."""

    def __init__(self, path: Path) -> None:
        """Nobody is on them."""
        self.path, self.judged, self.lost = path, dict[str, str | None](), list[str]()
        self.write()
        self.runs = Runs()
        self.watch = DeviceWatch(Fake(path), ("GPU-1", "GPU-2"), self.runs, self.judged.__setitem__)

    def write(self, **first: Any) -> None:
        """Say how the first device is."""
        listed = [DEVICE | {"uuid": "GPU-1"} | first, DEVICE | {"uuid": "GPU-2"}]
        self.path.write_text(json.dumps(listed))

    def look(self, times: int = 1) -> str | None:
        """Look; what speaks against the first device."""
        for _ in range(times):
            self.watch.look()
        assert self.judged["GPU-2"] is None
        return self.judged["GPU-1"]

    def run_on(self, uuid: str) -> None:
        """Let a job have a device."""
        claimed = SimpleNamespace(device_uuids=(uuid,))
        run = SimpleNamespace(id=uuid, claimed=claimed, lose_device=self.lost.append)
        self.runs._runs[uuid] = run  # type: ignore[index,assignment]  # only what is asked of it


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "gpus.json")


def test_a_device_that_others_use_is_refused_with_who_they_are_until_they_are_gone(bench: Bench) -> None:
    bench.write(memory={str(STRANGER): 12 * GB})
    assert bench.look() is None  # a trainer that has just ended looks the same
    name = Path(f"/proc/{STRANGER}/comm").read_text().strip()
    assert bench.look() == f"in use by process {STRANGER} ({name}), 12.0 GB, which is not Stoker's"
    bench.write()
    assert bench.look() is None


def test_what_cannot_be_seen_from_a_container_is_seen_by_its_memory(bench: Bench) -> None:
    bench.write(used_bytes=3 * GB)
    assert bench.look(2) == "3.0 GB of its memory are in use by processes that cannot be seen from here"


def test_our_own_processes_and_a_desktop_are_no_strangers(bench: Bench) -> None:
    bench.write(memory={str(os.getpid()): 12 * GB, str(STRANGER): GB // 10}, used_bytes=GB // 10)
    assert bench.look(2) is None


def test_where_a_job_of_ours_runs_only_who_is_seen_here_is_a_stranger(bench: Bench) -> None:
    bench.run_on("GPU-1")
    bench.write(memory={str(2**22 + 1): 12 * GB}, used_bytes=12 * GB)  # our own, as the host numbers it
    assert bench.look(2) is None
    bench.write(processes=[STRANGER])
    assert str(bench.look(2)).startswith(f"in use by process {STRANGER}")


def test_a_device_that_answers_no_more_is_taken_from_the_job_on_it(bench: Bench) -> None:
    bench.run_on("GPU-1")
    bench.write(lost=True)
    assert bench.look() is None  # one look may have gone wrong
    assert bench.look() == "the driver does not list it any more"
    assert bench.lost == ["GPU-1: the driver does not list it any more"]
    bench.write()
    assert bench.look() is None


def test_only_errors_of_the_hardware_speak_against_a_device(bench: Bench) -> None:
    bench.run_on("GPU-1")
    bench.write(xids=[13, 31])  # of a program
    assert bench.look() is None
    assert bench.lost == []
    bench.write(xids=[13, 79, 48])
    assert bench.look() == "hardware error: Xid 48, 79"
    assert len(bench.lost) == 1


def test_an_error_that_could_not_be_judged_is_judged_at_the_next_look(bench: Bench) -> None:
    def away(_uuid: str, _reason: str | None) -> None:
        raise ConnectionError("the database")

    bench.write(xids=[79])
    bench.watch._judge = away
    with pytest.raises(ConnectionError):
        bench.watch.look()
    bench.write()
    bench.watch._judge = bench.judged.__setitem__
    assert bench.look() == "hardware error: Xid 79"
    assert bench.look() is None


def test_a_driver_that_cannot_be_asked_says_nothing(bench: Bench) -> None:
    bench.write(lost=True)
    bench.look(2)
    bench.path.write_text("")
    assert bench.look() == "the driver does not list it any more"


def test_a_worker_begins_with_the_devices_that_nobody_uses(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "EMPTY_SECONDS", 0.0)
    assert at_start(Fake(bench.path), ("GPU-1", "GPU-2")) == {}
    bench.write(processes=[STRANGER])
    assert list(at_start(Fake(bench.path), ("GPU-1", "GPU-2"))) == ["GPU-1"]
    bench.write(lost=True)
    assert at_start(Fake(bench.path), ("GPU-1", "GPU-2")) == {"GPU-1": "the driver does not list it any more"}


def test_seen_is_judged_without_a_file() -> None:
    assert fault_of(Seen()) is None
    assert foreign(Seen({7: 0}), {7}, busy=False) is None
    assert str(foreign(Seen({2**22 + 1: 0}), set(), busy=False)).startswith("in use by process 4194305, which")


def test_torch_keeps_to_a_share_of_the_memory_less_its_context() -> None:
    assert limit_memory({"A": "b"}, 1.0, 80 * GB) == {"A": "b"}
    assert limit_memory({}, 0.5, 80 * GB) == {"PYTORCH_ALLOC_CONF": "per_process_memory_fraction:0.4938"}
    assert limit_memory({}, 0.02, 10 * GB) == {"PYTORCH_ALLOC_CONF": "per_process_memory_fraction:0.0100"}
    own = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    assert limit_memory(own, 0.25, 10 * GB) == {
        "PYTORCH_ALLOC_CONF": "expandable_segments:True,per_process_memory_fraction:0.2000"
    }
