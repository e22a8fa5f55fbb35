"""What can be asked for: the job spec, version 1, the same in API, CLI and Python.

Defaults are those of the tutorial. A spec that was accepted is stored whole, with every default written out.
"""

import difflib
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from stoker.errors import InvalidInput
from stoker.jobs.documents import Strict, shown, unprintable_character, validate
from stoker.jobs.quantities import parse_bytes, parse_every, parse_seconds
from stoker.training import config as training

PRIORITIES = {"low": 0, "normal": 1, "high": 2, "urgent": 3}
DATASET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


def _printable(field: str, limit: int) -> AfterValidator:
    def check(text: str) -> str:
        if not text.strip() or len(text) > limit:
            raise InvalidInput(field, f"has {len(text)} characters", f"use 1 to {limit}, not only blanks")
        if bad := unprintable_character(text):
            raise InvalidInput(field, f"holds the unprintable character {bad}", "remove it")
        return text

    return AfterValidator(check)


def _choice(field: str, known: tuple[str, ...]) -> AfterValidator:
    def check(value: str) -> str:
        if value not in known:
            near = difflib.get_close_matches(value[:100], known, n=3)
            raise InvalidInput(
                field,
                f"{shown(value)!r} is not known",
                f"nearest: {', '.join(near)}" if near else f"known: {', '.join(known[:12])}",
            )
        return value

    return AfterValidator(check)


def dataset_name(value: str) -> str:
    """Check the name of a data set: lower-case letters, digits, dot, dash, underscore.

    Raises InvalidInput.
    """
    if not DATASET_NAME.fullmatch(value):
        raise InvalidInput(
            "dataset", f"{shown(value)!r} is not a name", "use a-z 0-9 . _ -, at most 100, a letter or digit first"
        )
    return value


Name = Annotated[str, _printable("name", 100)]
Tag = Annotated[str, _printable("tags", 100)]
Bytes = Annotated[int, BeforeValidator(lambda value: parse_bytes("memory", value))]
Seconds = Annotated[float, BeforeValidator(lambda value: parse_seconds("duration", value))]


class Optimizer(Strict):
    """How weights are changed; see stoker.training.config.OptimizerConfig."""

    name: Annotated[str, _choice("optimizer.name", training.OPTIMIZERS)] = "sgd"
    lr: float = Field(default=0.001, ge=1e-12, le=1000)
    momentum: float = Field(default=0.9, ge=0, le=0.9999)
    weight_decay: float = Field(default=0.0, ge=0, le=1000)
    nesterov: bool = False


class Schedule(Strict):
    """How the learning rate changes from step to step."""

    name: Annotated[str, _choice("schedule.name", training.SCHEDULES)] = "constant"


class Train(Strict):
    """A built-in recipe: data set, network, and how long."""

    dataset: Annotated[str, AfterValidator(dataset_name)]
    model: Annotated[str, _choice("model", training.known_models())] = "tutorial-cnn"
    epochs: int = Field(default=2, ge=1, le=100_000)
    batch_size: int = Field(default=4, ge=1, le=65_536)
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    augment: list[str] = Field(default=[], max_length=8)
    precision: Annotated[str, _choice("precision", training.PRECISIONS)] = "auto"
    validation: float = Field(default=0.0, ge=0, le=0.5)
    max_bad_images: int = Field(default=0, ge=0, le=10_000_000)
    seed: int = Field(default=0, ge=0, le=2**62)


class Resources(Strict):
    """What one attempt holds while it runs. On a CPU, gpus, gpu_memory and gpu_type do not apply."""

    device: Literal["auto", "cpu", "gpu"] = "auto"
    gpus: Annotated[float, Field(gt=0, le=1024)] = 1
    gpu_memory: Bytes | None = None
    gpu_type: Annotated[str, _printable("gpu_type", 100)] | None = None
    cpus: Annotated[float, Field(gt=0, le=4096)] = 1
    memory: Bytes = 2 * 10**9

    @model_validator(mode="after")
    def _whole(self) -> "Resources":
        if self.gpus != int(self.gpus):
            raise InvalidInput(
                "resources.gpus", f"{self.gpus} is not a whole number", "no pool allows fractions of a GPU"
            )
        if round(self.cpus * 1000) < 1:
            raise InvalidInput("resources.cpus", f"{self.cpus} is too little", "ask for at least 0.001")
        return self


class Checkpoint(Strict):
    """How often the state of training is kept, and how much of it."""

    every: str = "1 epoch"
    keep_latest: int = Field(default=1, ge=1, le=1000)
    keep_best: int = Field(default=1, ge=0, le=1000)

    @model_validator(mode="after")
    def _interval(self) -> "Checkpoint":
        parse_every("checkpoint.every", self.every)
        return self


class JobSpec(Strict):
    """All that a user says about a job."""

    version: Literal[1] = 1
    name: Name  # given, or made of data set and model
    kind: Literal["train"] = "train"
    train: Train
    resources: Resources = Resources()
    priority: Literal["low", "normal", "high", "urgent"] = "normal"
    max_retries: int = Field(default=0, ge=0, le=100)
    time_limit: Seconds | None = None
    stall_timeout: Seconds = 600.0
    checkpoint: Checkpoint = Checkpoint()
    network: Literal["none", "open"] = "none"
    tags: list[Tag] = Field(default=[], max_length=50)
    after: list[Annotated[int, Field(ge=1)]] = Field(default=[], max_length=1000)

    @model_validator(mode="before")
    @classmethod
    def _named(cls, document: Any) -> Any:
        if isinstance(document, dict) and "name" not in document and isinstance(train := document.get("train"), dict):
            return document | {"name": f"{train.get('dataset')}-{train.get('model', 'tutorial-cnn')}"[:100]}
        return document

    @model_validator(mode="after")
    def _trainable(self) -> "JobSpec":
        """Let the engine refuse what only it can judge, under the spec's own field names."""
        try:
            training_config(self)
        except InvalidInput as error:
            raise InvalidInput(f"train.{error.field}", error.problem, error.fix) from None
        if len(set(self.tags)) != len(self.tags):
            raise InvalidInput("tags", "one is given twice", "give it once")
        return self

    def document(self) -> dict[str, Any]:
        """The spec as stored and shown: JSON, every default written out."""
        return self.model_dump(mode="json")


def parse_spec(document: Any) -> JobSpec:
    """Validate a spec that came as JSON or YAML.

    Raises DocumentInvalid.
    """
    return validate(JobSpec, document)


def training_config(spec: JobSpec) -> training.TrainConfig:
    """Translate a spec into what the training engine is told.

    Raises InvalidInput with the engine's field names.
    """
    count, unit = parse_every("checkpoint.every", spec.checkpoint.every)
    document = spec.train.model_dump() | {f"checkpoint_every_{unit}": count}
    return training.TrainConfig.from_document(document)
