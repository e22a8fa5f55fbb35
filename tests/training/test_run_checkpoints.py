"""What ``stoker.current_run()`` keeps in checkpoints, and refuses to go on from."""

from pathlib import Path
from typing import Any

import pytest
from torch import nn

import stoker
from stoker.training.config import CheckpointSource, Interval
from tests.support.scripts import Script, say


def saves(**things: Any) -> Any:
    """A program that writes one checkpoint of these things, or goes on from it."""

    def program() -> None:
        run = stoker.current_run()
        run.resume(**things)
        for _ in run.epochs(1 + run.epoch):
            pass

    return program


def keeps_a_function() -> None:
    run = stoker.current_run()
    run.resume(model=nn.Linear(1, 1), loss=lambda: 3)
    run.checkpoint()


def test_what_is_no_data_is_refused_by_its_name(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Script(tmp_path, keeps_a_function) as script:
        assert script.wait() == 1
    assert "values.loss: a value of type function cannot be kept in a checkpoint" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("things", "evidence"),
    [
        ({"model": nn.Linear(2, 3)}, "model does not take its state"),
        ({"net": nn.Linear(2, 2)}, "the checkpoint holds no net"),
        ({}, "the checkpoint holds more than run.resume was given: it lacks model=…"),
    ],
)
def test_a_checkpoint_of_other_objects_is_refused(things: Any, evidence: str, tmp_path: Path) -> None:
    with Script(tmp_path, saves(model=nn.Linear(2, 2)), scratch="a") as first:
        assert first.wait() == 0
    with Script(tmp_path, saves(**things), scratch="b", checkpoint=first.source()) as second:
        assert second.wait() == 1
    (failure,) = second.of_kind("failure")
    assert failure["class"] == "checkpoint_mismatch"
    assert evidence in failure["evidence"]


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"no checkpoint")
    source = CheckpointSource(str(damaged), "0" * 64, 3)
    with Script(tmp_path, saves(model=nn.Linear(2, 2)), checkpoint=source) as script:
        assert script.wait() == 1
    assert script.messages[-1]["class"] == "checkpoint_mismatch"


def asked_for_a_checkpoint() -> None:
    run = stoker.current_run()
    run.resume(model=nn.Linear(1, 1))
    run.log(loss=1)
    for step in run.steps(range(10**9)):
        if step == 0:
            say("ready")
        run.log(loss=step)


def test_a_checkpoint_is_written_when_the_supervisor_asks_for_one(tmp_path: Path) -> None:
    with Script(tmp_path, asked_for_a_checkpoint, every=Interval("step", 10**9)) as script:
        next(script.printed())
        script.ask("checkpoint")
        assert script.until("checkpoint")["step"] > 0
