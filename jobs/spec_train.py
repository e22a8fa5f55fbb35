"""The section `train` of a spec: a built-in recipe. Defaults are those of the tutorial."""

from typing import Annotated

from pydantic import Field

from stoker.jobs.documents import Strict
from stoker.jobs.spec_fields import DatasetName, choice
from stoker.training import config as training


class Optimizer(Strict):
    """How weights are changed; see stoker.training.config.OptimizerConfig."""

    name: Annotated[str, choice("optimizer.name", training.OPTIMIZERS)] = "sgd"
    lr: float = Field(default=0.001, ge=1e-12, le=1000)
    momentum: float = Field(default=0.9, ge=0, le=0.9999)
    weight_decay: float = Field(default=0.0, ge=0, le=1000)
    nesterov: bool = False


class Schedule(Strict):
    """How the learning rate changes from step to step."""

    name: Annotated[str, choice("schedule.name", training.SCHEDULES)] = "constant"


class Train(Strict):
    """A built-in recipe: data set, network, and how long."""

    dataset: DatasetName
    model: Annotated[str, choice("model", training.known_models())] = "tutorial-cnn"
    epochs: int = Field(default=2, ge=1, le=100_000)
    batch_size: int = Field(default=4, ge=1, le=65_536)
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    augment: list[str] = Field(default=[], max_length=8)
    precision: Annotated[str, choice("precision", training.PRECISIONS)] = "auto"
    validation: float = Field(default=0.0, ge=0, le=0.5)
    max_bad_images: int = Field(default=0, ge=0, le=10_000_000)
    seed: int = Field(default=0, ge=0, le=2**62)
