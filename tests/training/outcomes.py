"""Recipes that are hard to interrupt, and what a run leaves behind: all that has to be the same."""

import json
from pathlib import Path
from typing import Any

from stoker.training import tensorfile
from stoker.training.config import CheckpointSource, OptimizerConfig, ScheduleConfig, TrainConfig
from tests.training.children import Message, finish, of_kind, source_of, task

Curves = dict[str, dict[int, float]]


def recipe(**fields: Any) -> TrainConfig:
    """Two epochs of 90 steps on the digits, with a checkpoint every 13 steps."""
    values = {
        "batch_size": 16, "optimizer": OptimizerConfig(lr=0.02), "seed": 3, "checkpoint_every_steps": 13, "epochs": 2,
    }  # fmt: skip
    return TrainConfig("digits", **{**values, **fields})


RECIPES = {
    "plain": recipe(),
    "augmented": recipe(augment=("flip", "translate(3)", "cutout(6)")),
    "one-cycle, validation": recipe(
        schedule=ScheduleConfig("one-cycle"), validation=0.1, optimizer=OptimizerConfig(lr=0.05, nesterov=True)
    ),
    "adamw, cosine, every epoch": recipe(
        optimizer=OptimizerConfig("adamw", lr=0.002, weight_decay=0.01),
        schedule=ScheduleConfig("cosine"),
        checkpoint_every_steps=None,
        epochs=4,
    ),
    "BatchNorm, channels last": recipe(model="fast", batch_size=96, epochs=1, checkpoint_every_steps=3),
    "dropout": recipe(model="squeezenet1_1", batch_size=96, epochs=1, checkpoint_every_steps=3),
}


class Outcome:
    """What a run leaves behind: all that has to be the same."""

    def __init__(self, scratch: Path, last: CheckpointSource, curves: Curves) -> None:
        """Read it from a scratch folder, but for the curves."""
        self.result = json.loads((scratch / "result.json").read_text())
        self.result.pop("train_seconds")
        self.predictions = (scratch / "predictions.bin").read_bytes()
        self.curves = curves
        with Path(last.path).open("rb") as file:
            header = tensorfile.read_header(file)
            self.tensors = {one.name: (one.dtype, one.shape) for one in header.entries}
            self.content = file.read()
        self.step = last.step

    def differences(self, other: "Outcome") -> list[str]:
        """The parts in which another outcome is not the same, bit for bit."""
        parts = ("step", "tensors", "content", "predictions", "result", "curves")
        return [part for part in parts if getattr(self, part) != getattr(other, part)]


def add(curves: Curves, messages: list[Message], upto: int | None = None) -> None:
    """Add the points of an attempt; those after the checkpoint from which the next one goes on do not count."""
    for message in of_kind(messages, "metrics"):
        for step, value in zip(message["steps"], message["values"], strict=True):
            if upto is None or step <= upto:
                curves.setdefault(message["key"], {})[step] = value


def undisturbed(config: TrainConfig, cache: Path, scratch: Path) -> Outcome:
    """Run a recipe once, from its start to its end."""
    messages = finish(task(config, cache, scratch))
    curves: Curves = {}
    add(curves, messages)
    return Outcome(scratch, source_of(of_kind(messages, "checkpoint")[-1], scratch), curves)
