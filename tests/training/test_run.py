"""What ``stoker.current_run()`` does in a job, and that it does no harm anywhere else."""

import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import stoker
from stoker.training.run import Run
from stoker.workers.protocol import Inbox
from tests.support.scripts import Script, say


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
