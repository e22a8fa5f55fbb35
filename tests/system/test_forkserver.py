"""The fork server and its trainers, from the worker's side."""

import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stoker.training.config import DatasetSource, Task, TrainConfig
from stoker.workers import processes, trainers
from stoker.workers.orders import Order
from stoker.workers.trainers import LOST, ForkServer, Trainer
from tests.support.odd_trainers import BEHAVIOURS
from tests.support.waiting import wait_for
from tests.support.workers import ROOT, is_gone, state_letter

ENVIRON = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "STOKER_BROKER_URL": "a secret"}
COMMAND = (sys.executable, "-m", "tests.support.odd_trainers")
Spawn = Callable[..., Trainer]


def start(server: ForkServer, home: Path, behaviour: str, lease_seconds: float = 60.0) -> Trainer:
    """Start a trainer of some behaviour, whose lease runs for some seconds."""
    seed = [one.__name__ for one in BEHAVIOURS].index(behaviour)
    scratch = home / f"{behaviour}-{time.monotonic_ns()}"
    scratch.mkdir()
    log = os.open(scratch / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    task = Task("train", TrainConfig("digits", seed=seed), DatasetSource("digits", str(home)), str(scratch))
    order = Order(
        id=scratch.name,
        task=task.to_document(),
        environment={"HOME": str(scratch)},
        scratch=str(scratch),
        title="a trainer",
        deadline=processes.boottime() + lease_seconds,
    )
    try:
        return server.spawn(order, log)
    finally:
        os.close(log)


@pytest.fixture
def server() -> Iterator[ForkServer]:
    """A fork server of odd trainers."""
    made = ForkServer(ENVIRON, COMMAND)
    made.start()
    made.wait_ready(30)
    yield made
    made.close()


@pytest.fixture
def spawn(server: ForkServer, home: Path) -> Iterator[Spawn]:
    """Starts a trainer of some behaviour, whose lease runs for some seconds."""
    started: list[Trainer] = []

    def begin(behaviour: str, lease_seconds: float = 60.0) -> Trainer:
        started.append(start(server, home, behaviour, lease_seconds))
        return started[-1]

    yield begin
    for trainer in started:
        trainer.kill()
        trainer.close()


def gone(trainer: Trainer, seconds: float = 60) -> list[str]:
    """Wait for a trainer's end; the types of what it said."""
    said: list[str] = []

    def ended() -> bool:
        said.extend(message["type"] for message in trainer.wait(0.05))
        return trainer.gone

    wait_for(ended, seconds, "the trainer's end")
    return said


def steps(trainer: Trainer, seconds: float) -> list[int]:
    """The steps that a trainer reports within some seconds."""
    until = time.monotonic() + seconds
    found = []
    while time.monotonic() < until:
        found += [message["step"] for message in trainer.wait(0.05) if message["type"] == "progress"]
    return found


def test_all_that_a_trainer_said_is_read_before_it_counts_as_gone(spawn: Spawn) -> None:
    trainer = spawn("succeed")
    assert gone(trainer) == ["started", "first_step", "metrics", "predictions", "result"]
    assert trainer.status == 0


def test_a_signal_is_told_apart_from_an_exit_code(spawn: Spawn) -> None:
    trainer = spawn("killed")
    gone(trainer)
    assert trainer.status == -signal.SIGKILL


def test_a_trainer_whose_lease_ends_is_frozen_and_goes_on_when_it_is_renewed(server: ForkServer, spawn: Spawn) -> None:
    trainer = spawn("stubborn", lease_seconds=0.5)
    wait_for(lambda: trainer.time_frozen(time.monotonic()) > 0, 60, "the freeze")
    trainer.wait(0)  # what it said before
    assert steps(trainer, 0.5) == []
    server.renew({trainer.id: processes.boottime() + 60})
    wait_for(lambda: steps(trainer, 0.1), 60, "a step")
    assert trainer.time_frozen(time.monotonic()) > 0.4
    trainer.kill()
    gone(trainer)


def test_a_frozen_trainer_that_somebody_wakes_is_frozen_again(spawn: Spawn) -> None:
    trainer = spawn("stubborn", lease_seconds=0.1)
    wait_for(lambda: trainer.time_frozen(time.monotonic()) > 0, 60, "the freeze")
    os.kill(trainer.pid, signal.SIGCONT)
    wait_for(lambda: state_letter(trainer.pid) == "T", 60, "the next freeze")
    trainer.kill()
    gone(trainer)


def test_a_renewal_in_time_keeps_it_going(server: ForkServer, spawn: Spawn) -> None:
    trainer = spawn("stubborn", lease_seconds=8)
    first_lease_ends = processes.boottime() + 8
    wait_for(lambda: steps(trainer, 0.1), 30, "a step")
    server.renew({trainer.id: processes.boottime() + 600})
    wait_for(
        lambda: processes.boottime() > first_lease_ends and steps(trainer, 0.1), 60, "steps beyond the first lease"
    )
    assert trainer.time_frozen(time.monotonic()) == 0
    trainer.kill()
    gone(trainer)


def test_a_frozen_trainer_can_be_killed(spawn: Spawn) -> None:
    trainer = spawn("stubborn", lease_seconds=0.1)
    wait_for(lambda: trainer.time_frozen(time.monotonic()) > 0, 60, "the freeze")
    trainer.kill()
    gone(trainer)
    assert trainer.status == -signal.SIGKILL


def test_a_trainer_that_stays_frozen_ends_as_lost_not_as_killed(home: Path) -> None:
    made = ForkServer(ENVIRON, (*COMMAND, "--frozen-limit=0.3"))
    made.start()
    try:
        trainer = start(made, home, "stubborn", lease_seconds=0.1)
        gone(trainer)
        assert trainer.status == -signal.SIGKILL
        assert trainer.lost is not None
        assert "cut off from the database" in trainer.lost
        trainer.close()
    finally:
        made.close()


def test_a_server_that_cannot_fork_for_a_moment_lives_on(home: Path) -> None:
    full = home / "full"
    full.touch()
    made = ForkServer(ENVIRON, (*COMMAND, f"--forks-fail-while={full}"))
    made.start()
    try:
        refused = start(made, home, "succeed")
        gone(refused)
        assert refused.lost is not None
        assert "no process could be started for it" in refused.lost
        full.unlink()
        accepted = start(made, home, "succeed")
        assert gone(accepted)[-1] == "result"
        for trainer in (refused, accepted):
            trainer.close()
    finally:
        made.close()


def test_a_fork_server_that_cannot_be_started_is_tried_again(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    command = home / "server"
    made = ForkServer(ENVIRON, (str(command),))
    made.start()
    try:
        wait_for(lambda: "fork_server_not_started" in caplog.text, 60, "a first try")
        command.write_text(f"#!/bin/sh\nexec {' '.join(COMMAND)} $1\n")
        command.chmod(0o700)
        trainer = start(made, home, "succeed")
        assert gone(trainer)[-1] == "result"
        trainer.close()
    finally:
        made.close()


def grandchild_of(trainer: Trainer) -> int:
    """The pid of the grandchild that a trainer announces."""
    notes = wait_for(lambda: [m for m in trainer.wait(0.05) if m["type"] == "note"], 60, "the grandchild")
    return int(notes[0]["text"].split()[1])


def test_a_grandchild_in_its_own_session_dies_with_its_trainer_however_that_ends(spawn: Spawn) -> None:
    trainer = spawn("family")
    pid = grandchild_of(trainer)
    os.kill(wait_for(lambda: trainer.pid, 60, "its pid"), signal.SIGKILL)  # nobody asked the server
    gone(trainer)
    assert is_gone(pid)


def test_a_stray_that_died_by_itself_counts_since_what_it_left_is_looked_for_next() -> None:
    known = set(processes.children(os.getpid()))
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert processes.kill_strays(known) == [pid]
    assert processes.kill_strays(known) == []


def test_two_trainers_do_not_touch_each_other(spawn: Spawn) -> None:
    one, two = spawn("family"), spawn("family")
    pids = [grandchild_of(one), grandchild_of(two)]
    one.kill()
    gone(one)
    assert [is_gone(pid) for pid in pids] == [True, False]
    two.kill()
    gone(two)
    assert is_gone(pids[1])


def test_a_server_that_dies_takes_its_trainers_along_and_is_started_again(server: ForkServer, spawn: Spawn) -> None:
    trainer = spawn("stubborn")
    pid = wait_for(lambda: trainer.pid, 60, "its pid")
    first = server.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: trainer.status is not None, 60, "word of the loss")
    assert trainer.status == LOST
    wait_for(lambda: is_gone(pid), 60, "its end")
    assert gone(spawn("succeed"))[-1] == "result"
    assert server.pid != first


def test_closing_ends_everything(server: ForkServer, spawn: Spawn) -> None:
    trainer = spawn("family")
    pids = [grandchild_of(trainer), wait_for(lambda: trainer.pid, 60, "its pid"), server.pid or 0]
    server.close()
    assert all(map(is_gone, pids))


def test_one_that_still_loads_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainers, "LEAVE_SECONDS", 3600.0)
    monkeypatch.setattr(trainers, "CLOSE_SECONDS", 3600.0)
    made = ForkServer(ENVIRON, (sys.executable, "-c", "import signal; signal.pause()"))
    made.start()
    wait_for(lambda: made.pid is not None, 30, "its process")
    pid = made.pid
    made.close()
    assert pid is not None
    assert is_gone(pid)


def test_a_trainer_ends_at_once_when_nobody_listens_any_more(spawn: Spawn) -> None:
    trainer = spawn("obedient")
    pid = wait_for(lambda: trainer.pid, 60, "its pid")
    trainer._connection.shutdown(socket.SHUT_RDWR)
    wait_for(lambda: is_gone(pid), 60, "its end")


def test_an_error_in_a_trainer_is_an_exit_code(spawn: Spawn, home: Path) -> None:
    trainer = spawn("obedient")
    shutil.rmtree(home / trainer.id)  # its folder goes away under it
    trainer.ask("stop")
    gone(trainer)
    assert trainer.status == 1
