"""The victims: small trainings with many checkpoints, three kinds of them."""

from typing import Any

STEPS = "30 steps"  # between two checkpoints
LEAST_CHECKPOINTS = 6  # that each victim makes, undisturbed

_TRAIN: dict[str, dict[str, Any]] = {
    "plain": {"epochs": 2, "optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9}, "seed": 1},
    "drawn": {"epochs": 2, "augment": ["translate(2)"], "schedule": {"name": "cosine"}, "seed": 2},
    "adam": {"epochs": 2, "optimizer": {"name": "adamw", "lr": 0.001}, "seed": 3},
}
RECIPES = tuple(_TRAIN)


def spec(recipe: str) -> dict[str, Any]:
    """The body of a POST; the recipe is the job's name."""
    return {
        "kind": "train",
        "name": recipe,
        "train": {"dataset": "digits", "model": "tutorial-cnn", "batch_size": 16} | _TRAIN[recipe],
        "resources": {"device": "cpu", "cpus": 0.25, "memory": "300MB"},
        "max_retries": 100,  # a killed trainer uses one up, and it is not the job's fault here
        "checkpoint": {"every": STEPS, "keep_latest": 3},
    }
