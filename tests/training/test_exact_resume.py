"""A run that was killed, or asked to stop, at any step ends bit for bit like one that never stopped."""

import os
import random
import signal
from pathlib import Path

import pytest
import torch

from stoker.training import models, reporter
from stoker.training.channel import Channel
from stoker.training.config import CheckpointSource, Task, TrainConfig
from stoker.training.trainer import run
from tests.training.children import Child, Message, finish, of_kind, source_of, task
from tests.training.kills import killed_at
from tests.training.outcomes import RECIPES, Curves, Outcome, add, recipe, undisturbed


def disturbed(config: TrainConfig, cache: Path, folder: Path, dice: random.Random, how: str) -> tuple[Outcome, int]:
    """Interrupt a run a few checkpoints after each of its starts, until it finishes; how often that was."""
    curves: Curves = {}
    source: CheckpointSource | None = None
    for attempt in range(40):
        given = task(config, cache, folder / str(attempt), checkpoint=source)
        messages, interrupted = interrupt(given, dice.randint(1, 4), how)
        announced = of_kind(messages, "checkpoint")
        source = source_of(announced[-1], Path(given.scratch)) if announced else source
        if not interrupted and source:
            add(curves, messages)
            return Outcome(Path(given.scratch), source, curves), attempt
        add(curves, messages, upto=source.step if source else 0)
    raise AssertionError("the run never came to its end")


def interrupt(given: Task, after: int, how: str) -> tuple[list[Message], bool]:
    """Run until so many checkpoints were announced, then kill or stop; what came in, to the end of the socket."""
    messages: list[Message] = []
    with Child(given) as child:
        for message in child.messages():
            messages.append(message)
            if message["type"] == "checkpoint":
                after -= 1
                if after == 0 and how == "kill":
                    child.kill()
                elif after == 0:
                    child.ask("stop")
        finished = child.wait() == 0 and messages[-1]["type"] != "stopped"
    return messages, not finished


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_killed_run_ends_like_one_that_never_stopped(name: str, cache: Path, tmp_path: Path) -> None:
    config = RECIPES[name]
    expected = undisturbed(config, cache, tmp_path / "whole")
    found, kills = disturbed(config, cache, tmp_path, random.Random(name), "kill")
    assert kills >= 1
    assert found.differences(expected) == []  # the file too: weights, buffers, optimizer, random generators, every bit


@pytest.mark.parametrize("share", [0.02, 0.45, 0.97])
def test_a_run_that_is_killed_at_any_step_ends_like_one_that_never_stopped(
    share: float, cache: Path, tmp_path: Path
) -> None:
    config = RECIPES["augmented"]
    expected = undisturbed(config, cache, tmp_path / "whole")
    found, _ = killed_at(int(share * expected.step), config, cache, tmp_path)
    assert found.differences(expected) == []


def test_a_stopped_run_loses_no_step(cache: Path, tmp_path: Path) -> None:
    config = recipe(augment=("translate(2)",), checkpoint_every_steps=30)
    expected = undisturbed(config, cache, tmp_path / "whole")
    found, stops = disturbed(config, cache, tmp_path, random.Random(5), "stop")
    assert stops >= 1
    assert (found.content, found.predictions, found.curves) == (expected.content, expected.predictions, expected.curves)


def stopped_in_validation(given: Task, channel: Channel) -> int:
    """A trainer that is asked to stop while it validates, and tells each time that it looks."""
    plain = models.TutorialCnn.forward

    def forward(self: models.TutorialCnn, images: torch.Tensor) -> torch.Tensor:
        if not self.training:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, images)

    models.TutorialCnn.forward = forward  # type: ignore[method-assign]  # in the forked process only
    reporter.PROGRESS_SECONDS = 0.0
    return run(given, channel)


def test_a_stop_while_validating_waits_for_no_validation_and_loses_nothing(cache: Path, tmp_path: Path) -> None:
    config = recipe(validation=0.1, checkpoint_every_steps=None)
    expected = undisturbed(config, cache, tmp_path / "whole")
    curves: Curves = {}
    source: CheckpointSource | None = None
    for _ in range(2):  # the second time it has nothing to do but to validate
        given = task(config, cache, tmp_path / "stopped", checkpoint=source)
        with Child(given, stopped_in_validation) as child:
            messages = list(child.messages())
            assert child.wait() == 0
        assert messages[-1] == {"type": "stopped", "step": 82}
        assert [message["step"] for message in of_kind(messages, "progress") if message["phase"] == "evaluate"] == [144]
        announced = of_kind(messages, "checkpoint")
        assert len(announced) == (0 if source else 1)
        source = source or source_of(announced[0], tmp_path / "stopped")
        add(curves, messages)
    last = finish(task(config, cache, tmp_path / "rest", checkpoint=source))
    add(curves, last)
    found = Outcome(tmp_path / "rest", source_of(of_kind(last, "checkpoint")[-1], tmp_path / "rest"), curves)
    assert (found.content, found.predictions, found.curves) == (expected.content, expected.predictions, expected.curves)
    assert found.result == expected.result


def test_a_run_that_was_complete_evaluates_again(cache: Path, tmp_path: Path) -> None:
    config = recipe(epochs=1)
    first = finish(task(config, cache, tmp_path / "a"))
    last = source_of(of_kind(first, "checkpoint")[-1], tmp_path / "a")
    again = finish(task(config, cache, tmp_path / "b", checkpoint=last))
    assert not of_kind(again, "checkpoint")
    assert not of_kind(again, "metrics")
    assert (tmp_path / "a/predictions.bin").read_bytes() == (tmp_path / "b/predictions.bin").read_bytes()
