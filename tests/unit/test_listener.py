"""Errors of GPUs between two looks, through real processes that ask a library which is made up in a folder."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.workers import processes
from stoker.workers.devices import Nvml
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]


class Machine:
    """Two GPUs, and the inventory that looks at them."""

    def __init__(self, folder: Path) -> None:
        """Both answer, and no error has come."""
        self.folder, self.inventory = folder, Nvml()
        self.lose()
        (folder / "errors").touch()

    def lose(self, *uuids: str) -> None:
        """Say which GPUs do not answer, and no others."""
        draft = self.folder / "lost.new"
        draft.write_text("\n".join(uuids))
        draft.rename(self.folder / "lost")

    def fail(self, uuid: str, *xids: int) -> None:
        """Let errors come."""
        with (self.folder / "errors").open("a") as errors:
            errors.write("".join(f"{uuid} {xid}\n" for xid in xids))

    def look(self) -> dict[str, set[int]]:
        """The GPUs that answer, and their errors since the last look."""
        seen = self.inventory.look(0)
        assert seen is not None
        return {uuid: set(found.xids) for uuid, found in seen.items()}

    def told(self, uuid: str, xids: set[int]) -> bool:
        """Wait until these errors of a GPU, and no others, are told, at whichever looks; each at one."""
        found: list[int] = []

        def all_told() -> bool:
            found.extend(self.look()[uuid])
            return set(found) >= xids

        wait_for(all_told, 20, f"{xids} of {uuid}")
        return sorted(found) == sorted(xids)

    @staticmethod
    def listening() -> list[int]:
        """The processes that listen."""
        found = []
        for pid in processes.children(os.getpid()):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it was reaped meanwhile
                if b"listen" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                    found.append(pid)
        return found


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\ncd {ROOT}\nshift 2\nexec {sys.executable} -m tests.support.made_up_nvml {tmp_path} "$@"\n'
    )
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    made = Machine(tmp_path)
    yield made
    made.inventory.close()
    wait_for(lambda: not made.listening(), 30, "nobody to listen")


def test_what_comes_between_two_looks_is_told_at_a_later_one_and_once(machine: Machine) -> None:
    machine.fail("GPU-1", 48)  # before anybody listened
    assert machine.look() == {"GPU-1": set(), "GPU-2": set()}
    machine.fail("GPU-1", 79, 13)
    machine.fail("GPU-2", 31)
    assert machine.told("GPU-1", {79, 13})
    machine.fail("GPU-1", 94)
    assert machine.told("GPU-1", {94})
    assert len(machine.listening()) == 1


def test_a_gpu_that_was_lost_is_heard_again_and_the_other_one_all_the_time(machine: Machine) -> None:
    machine.look()
    (first,) = machine.listening()
    machine.lose("GPU-1")
    machine.fail("GPU-2", 63)
    assert machine.told("GPU-2", {63})
    wait_for(lambda: not machine.inventory._listener._ear.hears(["GPU-1"]), 30, "the loss to be noticed")  # type: ignore[union-attr]
    machine.fail("GPU-2", 64)  # the one that listens now has to tell it, though it ends at the next look
    machine.lose()
    told = machine.look()["GPU-2"]
    assert machine.listening() != [first]
    assert told == {64} or machine.told("GPU-2", {64})
    machine.fail("GPU-1", 95)
    assert machine.told("GPU-1", {95})


def test_whoever_listens_is_no_stray_and_is_replaced_when_it_ends(machine: Machine) -> None:
    machine.look()
    (listener,) = machine.listening()
    others = {*processes.children(os.getpid())} - {listener}  # such as the databases of other tests
    assert processes.kill_strays(others) == []
    os.kill(listener, signal.SIGKILL)
    wait_for(lambda: not machine.listening(), 30, "it to end")
    machine.look()
    machine.fail("GPU-2", 79)
    assert machine.told("GPU-2", {79})


def test_it_ends_with_its_worker(machine: Machine) -> None:
    machine.look()
    (listener,) = machine.listening()
    machine.inventory._listener._ear.mute()  # type: ignore[union-attr]
    wait_for(lambda: processes.started(listener) is None, 30, "it to end")
