"""What can be asked for: the job spec, version 1, the same in API, CLI and Python.

Defaults are those of the tutorial. A spec that was accepted is stored whole, with every default written out.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from stoker.errors import InvalidInput
from stoker.jobs.documents import Strict, validate
from stoker.jobs.quantities import parse_every
from stoker.jobs.recipients import RecipientText
from stoker.jobs.spec_code import Environment, Notebook, Script, Variable, default_name
from stoker.jobs.spec_fields import Bytes, DatasetName, Name, Seconds, Tag, printable, refuse_repeated
from stoker.jobs.spec_train import Train
from stoker.training import config as training

PRIORITIES = {"low": 0, "normal": 1, "high": 2, "urgent": 3}
MOST_GPUS, MOST_CPUS = 1024, 4096
SECTIONS = ("train", "script", "notebook")  # one for each kind
OWN_CODE = ("environment", "datasets", "secrets")  # what only a script or a notebook has


class Resources(Strict):
    """What one attempt holds while it runs. On a CPU, gpus, gpu_memory and gpu_type do not apply."""

    device: Literal["auto", "cpu", "gpu"] = "auto"
    gpus: float = 1
    gpu_memory: Bytes | None = None
    gpu_type: Annotated[str, printable("gpu_type", 100)] | None = None
    cpus: float = 1
    memory: Bytes = 2 * 10**9

    @field_validator("gpus")
    @classmethod
    def _whole_or_part(cls, gpus: float) -> float:
        whole, part = gpus == int(gpus) and 1 <= gpus <= MOST_GPUS, 0.001 <= gpus <= 0.999
        if not whole and not part:
            how = f"ask for a whole number up to {MOST_GPUS}, or for a part of one: 0.001 to 0.999"
            none = "; for a job without a GPU set resources.device: cpu" if gpus == 0 else ""
            raise InvalidInput("resources.gpus", f"{gpus:.15g} GPUs cannot be given", how + none)
        return gpus

    @field_validator("cpus")
    @classmethod
    def _some(cls, cpus: float) -> float:
        if not 0.001 <= cpus <= MOST_CPUS:
            raise InvalidInput("resources.cpus", f"{cpus:.15g} CPUs cannot be given", f"ask for 0.001 to {MOST_CPUS}")
        return cpus


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
    name: Name  # given, or made of what is to run
    kind: Literal["train", "script", "notebook"] = "train"
    train: Train | None = None
    script: Script | None = None
    notebook: Notebook | None = None
    environment: Environment = Environment()
    datasets: list[DatasetName] = Field(default=[], max_length=100)
    secrets: list[Variable] = Field(default=[], max_length=100)
    resources: Resources = Resources()
    priority: Literal["low", "normal", "high", "urgent"] = "normal"
    max_retries: int = Field(default=0, ge=0, le=100)
    time_limit: Seconds | None = None
    stall_timeout: Seconds = 600.0
    checkpoint: Checkpoint = Checkpoint()
    network: Literal["none", "open"] = "none"
    tags: list[Tag] = Field(default=[], max_length=50)
    after: list[Annotated[int, Field(ge=1)]] = Field(default=[], max_length=1000)
    notify: list[RecipientText] = Field(default=[], max_length=5)  # URLs and mail addresses that are told of its end

    @model_validator(mode="before")
    @classmethod
    def _completed(cls, document: Any) -> Any:
        """Add the kind, when one section alone is given, and the name; a document that is wrong is told so later."""
        if not isinstance(document, dict):
            return document
        given = [section for section in SECTIONS if document.get(section) is not None]
        kind = document.get("kind", given[0] if len(given) == 1 else "train")
        section = document.get(kind) if kind in SECTIONS else None
        name = document.get("name", _default_name(kind, section if isinstance(section, dict) else {}))
        return document | {"kind": kind, "name": name}

    @model_validator(mode="after")
    def _consistent(self) -> "JobSpec":
        self._check_sections()
        refuse_repeated("tags", self.tags)
        refuse_repeated("notify", self.notify)
        refuse_repeated("datasets", self.datasets)
        refuse_repeated("secrets", self.secrets)
        if both := sorted(set(self.secrets) & set(self.environment.variables)):
            raise InvalidInput("secrets", f"{both[0]} is a variable of the environment too", "give it once")
        if self.train is not None:
            _check_trainable(self)
        return self

    def _check_sections(self) -> None:
        """Exactly the section that the kind names is there."""
        if getattr(self, self.kind) is None:
            raise InvalidInput(self.kind, "is missing", f"add it, or name another kind than {self.kind}")
        for section in SECTIONS:
            if section != self.kind and getattr(self, section) is not None:
                raise InvalidInput(
                    section, f"is given, but the kind is {self.kind}", f"remove it, or set kind: {section}"
                )
        if self.kind == "train":
            for field in OWN_CODE:
                if getattr(self, field) != JobSpec.model_fields[field].default:
                    raise InvalidInput(
                        field, "belongs to scripts and notebooks", "remove it: a recipe has no such thing"
                    )

    @property
    def code(self) -> str | None:
        """The digest of the code that the job runs, as `sha256:…`; a recipe has none."""
        section = self.script or self.notebook
        return section.code if section else None

    def document(self) -> dict[str, Any]:
        """The spec as stored and shown: JSON, every default written out, without what its kind does not have."""
        foreign = {section for section in SECTIONS if section != self.kind}
        return self.model_dump(mode="json", exclude=foreign | set(OWN_CODE if self.kind == "train" else ()))


def _default_name(kind: object, section: dict[str, Any]) -> str:
    if kind == "train":
        return f"{section.get('dataset')}-{section.get('model', 'tutorial-cnn')}"[:100]
    return default_name(section) or str(kind)[:100]


def _check_trainable(spec: JobSpec) -> None:
    """Let the engine refuse what only it can judge, under the spec's own field names."""
    try:
        training_config(spec)
    except InvalidInput as error:
        raise InvalidInput(f"train.{error.field}", error.problem, error.fix) from None


def parse_spec(document: Any) -> JobSpec:
    """Validate a spec that came as JSON or YAML.

    Raises DocumentInvalid.
    """
    return validate(JobSpec, document)


def training_config(spec: JobSpec) -> training.TrainConfig:
    """Translate a spec into what the training engine is told.

    Raises InvalidInput with the engine's field names, or when the job is no training.
    """
    if spec.train is None:
        raise InvalidInput("train", "is missing", f"a {spec.kind} is not trained by a recipe")
    count, unit = parse_every("checkpoint.every", spec.checkpoint.every)
    document = spec.train.model_dump() | {f"checkpoint_every_{unit}": count}
    return training.TrainConfig.from_document(document)
