"""What ``stoker.current_run()`` does in a job, and that it does no harm anywhere else."""

import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import stoker
from stoker.errors import InvalidInput
from stoker.training.config import CheckpointSource, Interval
from stoker.training.handover import plain
from stoker.training.run import Run
from stoker.workers import findings
from stoker.workers.protocol import Inbox
from tests.support.scripts import Script


def say(*words: object) -> None:
    """Print a line that the test reads."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def test_without_stoker_every_call_is_harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run, net = Run(), nn.Linear(1, 1)
    kept = run.resume(model=net, best=0.5)
    assert (kept.model, kept.best) == (net, 0.5)
    assert list(run.epochs(3)) == [0, 1, 2]
    assert list(run.steps("abc")) == ["a", "b", "c"]
    run.log({"a": 1}, b="no number", step=3)
    run.progress(1, 2)
    run.checkpoint(accuracy=0.5)
    run.predictions(labels="nothing", predicted=None)
    run.result(thing=object())
    run.leave()
    run.close()
    assert (run.should_stop, run.resumed, run.active, run.job, run.attempt) == (False, False, False, None, 1)
    assert run.data("cifar10") == Path("data/cifar10")
    assert run.output == Path("output")
    assert run.output.is_dir()


def test_a_plain_script_loads_no_torch(tmp_path: Path) -> None:
    code = "import stoker, sys; run = stoker.current_run(); run.log(a=1); list(run.epochs(2)); run.result(a=1)"
    subprocess.run([sys.executable, "-c", f"{code}; assert not {{'torch', 'numpy'}} & set(sys.modules)"], check=True)


def logs() -> None:
    run = stoker.current_run()
    for number in range(3):
        run.log(loss=torch.tensor(0.5 * number, requires_grad=True), accuracy=number / 2)
    run.log({"bad": "text", "val loss": math.nan}, step=9)
    run.progress(3, 4)


def test_what_is_logged_arrives(tmp_path: Path) -> None:
    with Script(tmp_path, logs) as script:
        assert script.wait() == 0
    assert script.points("loss") == {1: 0.0, 2: 0.5, 3: 1.0}
    assert script.points("accuracy") == {1: 0.0, 2: 0.5, 3: 1.0}
    assert script.of_kind("progress")[-1] | {"type": ""} == {
        "type": "", "phase": "train", "epoch": 0, "epochs": 0, "step": 3, "steps": 4, "images_per_second": None,
    }  # fmt: skip
    assert [note["text"].split(":")[0] for note in script.of_kind("note")] == [
        "the metric bad is left out",
        "val_loss is nan at step 9",
    ]
    assert len(script.of_kind("first_step")) == 1


FLOOD = 200_000


def floods() -> None:
    run = stoker.current_run()
    for _ in range(FLOOD):
        run.log(loss=1.0, accuracy=0.5)


def test_a_flood_of_metrics_stays_below_what_the_supervisor_takes(tmp_path: Path) -> None:
    with Script(tmp_path, floods) as script:
        assert script.wait() == 0
    inbox = Inbox(clock=lambda: 0.0)  # without a second that would give it more
    for message in script.messages:
        inbox.take(json.dumps(message).encode() + b"\n")
    assert inbox.refused == []
    assert max(script.points("loss")) == FLOOD
    assert len(script.points("loss")) < 5000


def has_children() -> None:
    run = stoker.current_run()
    run.log(loss=1)

    def child() -> None:
        mine = stoker.current_run()
        mine.log(loss=2)
        mine.result(accuracy=1)
        for epoch in mine.epochs(2):
            say("child", epoch, mine.active, mine.should_stop, mine.output.name)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    code = "import stoker; run = stoker.current_run(); run.log(loss=3); print(run.active, run.job, flush=True)"
    subprocess.run([sys.executable, "-c", code], check=True, pass_fds=[3])
    say(run.active)


def test_only_the_main_process_of_a_job_speaks(tmp_path: Path) -> None:
    with Script(tmp_path, has_children) as script:
        assert list(script.printed()) == ["child 0 False False output", "child 1 False False output", "False 7", "True"]
        assert script.wait() == 0
    assert script.points("loss") == {1: 1.0}
    assert script.of_kind("result") == []


def trains_on() -> None:
    run = stoker.current_run()
    run.resume(model=nn.Linear(1, 1))
    for step in run.steps(range(1000)):
        run.log(loss=step)
        if step == 3:
            say("ready")
            while not run._speaker._mute:  # type: ignore[union-attr]  # it has not noticed yet
                pass
    say("done")


def test_a_training_goes_on_when_the_supervisor_is_gone(tmp_path: Path) -> None:
    with Script(tmp_path, trains_on) as script:
        lines = script.printed()
        assert next(lines) == "ready"
        script.socket.shutdown(2)
        assert list(lines) == ["done"]
        assert script.wait() == 0


def ends_by_its_own_will() -> None:
    run = stoker.current_run()
    net = nn.Linear(1, 1)
    run.resume(model=net)
    say("ready")
    while not run.should_stop:
        run.log(loss=1)
    if run.attempt == 1:
        run.leave()


@pytest.mark.parametrize("how", ["stop", "SIGTERM"])
def test_a_loop_of_its_own_is_told_to_stop(how: str, tmp_path: Path) -> None:
    with Script(tmp_path, ends_by_its_own_will) as script:
        next(script.printed())
        script.until("first_step")  # it listens
        if how == "stop":
            script.ask("stop")
        else:
            os.kill(script.pid, signal.SIGTERM)
        assert script.wait() == 0
    assert [message["type"] for message in script.messages[-2:]] == ["checkpoint", "stopped"]
    assert script.messages[-1]["step"] == script.messages[-2]["step"] == max(script.points("loss"))


def looks_away() -> None:
    stoker.current_run().log(loss=1)
    say("ready")
    signal.pause()


def test_a_sigterm_ends_a_script_that_has_no_loop_of_ours(tmp_path: Path) -> None:
    with Script(tmp_path, looks_away) as script:
        next(script.printed())
        os.kill(script.pid, signal.SIGTERM)
        assert script.wait() == -signal.SIGTERM


def loops_twice() -> None:
    run = stoker.current_run()
    for _ in run.epochs(1):
        list(run.steps([1]))
        list(run.steps([2]))


def test_two_loops_over_batches_in_one_epoch_are_refused(tmp_path: Path) -> None:
    with Script(tmp_path, loops_twice) as script:
        assert script.wait() == 1


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


def diverges() -> None:
    run = stoker.current_run()
    run.log(train_loss=math.inf)
    raise ValueError("no such class")


def test_an_error_after_a_loss_that_was_no_number_is_a_nan_loss(tmp_path: Path) -> None:
    with Script(tmp_path, diverges) as script:
        assert script.wait() == 1
    assert script.messages[-1]["class"] == "nan_loss"
    assert script.messages[-1]["evidence"].startswith("train_loss is inf at step 1; then:")


def lacks_data() -> None:
    stoker.current_run().data("cifar10")


def test_a_data_set_that_was_not_given_is_named(tmp_path: Path) -> None:
    (tmp_path / "data/digits").mkdir(parents=True)
    with Script(tmp_path, lacks_data) as script:
        assert script.wait() == 1
    assert script.messages[-1]["class"] == "data_missing"
    assert script.messages[-1]["evidence"] == "no data set 'cifar10': the job was given digits"


def hands_in() -> None:
    run = stoker.current_run()
    scores = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    run.result(loss=torch.tensor(0.25), history=[0.5, math.nan], accuracy=66.7)
    run.predictions(labels=[0, 1, 1], predicted=scores, classes=["cat", "dog"], probabilities=scores)


def test_what_is_handed_in_agrees_with_itself(tmp_path: Path) -> None:
    with Script(tmp_path, hands_in) as script:
        assert script.wait() == 0
    result, made = script.of_kind("result")[-1], script.of_kind("predictions")[-1]
    found = findings.read(script.scratch, result, made)
    assert (found.count, found.classes) == (3, ("cat", "dog"))
    assert found.document["accuracy"] == 2 / 3
    assert found.document["per_class"] == {"cat": 1.0, "dog": 0.5}
    assert (found.document["loss"], found.document["history"]) == (0.25, [0.5, None])
    assert found.document["notes"] == ["the script said accuracy 66.7"]


def hands_in_wrongly() -> None:
    run = stoker.current_run()
    wrong: list[dict[str, Any]] = [
        {"labels": [], "predicted": []},
        {"labels": [0, 1], "predicted": [0]},
        {"labels": [0.5], "predicted": [0]},
        {"labels": [0], "predicted": [-1]},
        {"labels": [0], "predicted": [2], "classes": ["a", "b"]},
        {"labels": ["cat"], "predicted": ["cat"]},
        {"labels": [0], "predicted": [0], "probabilities": [7.0]},
        {"labels": [0], "predicted": [0], "probabilities": [[math.nan]]},
        {"labels": [0, 1], "predicted": [0, 1], "probabilities": [[1.0], [1.0]]},
    ]
    for given in wrong:
        try:
            run.predictions(**given)
        except InvalidInput as error:
            say(error.field)


def test_predictions_that_cannot_be_are_refused_by_field(tmp_path: Path) -> None:
    with Script(tmp_path, hands_in_wrongly) as script:
        fields = list(script.printed())
    assert fields == ["labels", "predicted", "labels", "predicted", "predicted", "labels", *["probabilities"] * 3]
    assert script.of_kind("predictions") == []


def test_a_result_that_is_no_data_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"best\.model: a value of type Linear is no result"):
        plain({"model": nn.Linear(1, 1)}, "best")


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
