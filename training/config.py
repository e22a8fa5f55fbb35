"""What a trainer is told to do, as frozen dataclasses. Imports no torch: API, client and workers read it too."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from stoker.errors import InvalidInput
from stoker.quoting import quoted
from stoker.training.reading import choose, jsonable, read, within

BUILTIN_DATASETS = ("cifar10", "cifar100", "mnist", "fashion-mnist", "digits")
OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("constant", "cosine", "one-cycle")
PRECISIONS = ("float32", "bf16", "fp16", "auto")
KINDS = ("prepare", "train", "evaluate")
AUGMENTS = {"flip": None, "translate": (1, 64), "cutout": (1, 128)}  # name -> range of its one argument, in pixels
OWN_MODELS = ("tutorial-cnn", "fast")
TORCHVISION_MODELS = tuple(
    """
    alexnet convnext_base convnext_large convnext_small convnext_tiny densenet121 densenet161 densenet169 densenet201
    efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3 efficientnet_b4 efficientnet_b5 efficientnet_b6
    efficientnet_b7 efficientnet_v2_l efficientnet_v2_m efficientnet_v2_s googlenet inception_v3 maxvit_t mnasnet0_5
    mnasnet0_75 mnasnet1_0 mnasnet1_3 mobilenet_v2 mobilenet_v3_large mobilenet_v3_small regnet_x_16gf regnet_x_1_6gf
    regnet_x_32gf regnet_x_3_2gf regnet_x_400mf regnet_x_800mf regnet_x_8gf regnet_y_128gf regnet_y_16gf
    regnet_y_1_6gf regnet_y_32gf regnet_y_3_2gf regnet_y_400mf regnet_y_800mf regnet_y_8gf resnet101 resnet152 resnet18
    resnet34 resnet50 resnext101_32x8d resnext101_64x4d resnext50_32x4d shufflenet_v2_x0_5 shufflenet_v2_x1_0
    shufflenet_v2_x1_5 shufflenet_v2_x2_0 squeezenet1_0 squeezenet1_1 swin_b swin_s swin_t swin_v2_b swin_v2_s
    swin_v2_t vgg11 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn vit_b_16 vit_b_32 vit_h_14 vit_l_16 vit_l_32
    wide_resnet101_2 wide_resnet50_2
    """.split()  # noqa: SIM905 - eighty quotes hide the names; a test compares them with the installed torchvision
)


def known_models() -> tuple[str, ...]:
    """All names that ``model`` may have: our own two and the classification models of torchvision."""
    return OWN_MODELS + TORCHVISION_MODELS


@dataclass(frozen=True, slots=True)
class OptimizerConfig:
    """How weights move; the defaults are those of PyTorch's "Training a classifier" tutorial."""

    name: str = "sgd"  # one of OPTIMIZERS
    lr: float = 0.001  # learning rate per step, > 0; the highest one where a schedule changes it
    momentum: float = 0.9  # 0 <= momentum < 1; sgd only
    weight_decay: float = 0.0  # per step, >= 0
    nesterov: bool = False  # sgd with momentum > 0 only

    def __post_init__(self) -> None:
        """Raise InvalidInput for a value out of range."""
        choose("optimizer.name", self.name, OPTIMIZERS)
        within("optimizer.lr", self.lr, 1e-12, 1e3)
        within("optimizer.momentum", self.momentum, 0, 0.9999)
        within("optimizer.weight_decay", self.weight_decay, 0, 1e3)
        if self.nesterov and (self.name != "sgd" or self.momentum == 0):
            raise InvalidInput(
                "optimizer.nesterov", "needs sgd with a momentum above 0", "set momentum, or leave it out"
            )


@dataclass(frozen=True, slots=True)
class ScheduleConfig:
    """How the learning rate changes from step to step."""

    name: str = "constant"  # one of SCHEDULES

    def __post_init__(self) -> None:
        """Raise InvalidInput for an unknown name."""
        choose("schedule.name", self.name, SCHEDULES)


@dataclass(frozen=True, slots=True)
class Augmentation:
    """One way to vary training images: ``flip``, ``translate(4)``, ``cutout(8)``."""

    name: str
    pixels: int = 0  # reach of a translation, or edge of a cutout

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read one item of ``augment``; raises InvalidInput."""
        match = re.fullmatch(r"([a-z]{1,20})(?:\(([0-9]{1,4})\))?", text)
        choose("augment", match[1] if match else text, tuple(AUGMENTS))
        assert match is not None  # a text that does not match is no known name  # noqa: S101
        limits = AUGMENTS[match[1]]
        if limits is None:
            if match[2] is not None:
                raise InvalidInput("augment", f"{match[1]} takes no argument, got {quoted(text)}", f"write {match[1]}")
            return cls(match[1])
        if match[2] is None or not limits[0] <= int(match[2]) <= limits[1]:
            raise InvalidInput(
                "augment",
                f"{quoted(text)} needs a number of pixels from {limits[0]} to {limits[1]}",
                f"write {match[1]}(4)",
            )
        return cls(match[1], int(match[2]))


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """One training: data, model and recipe. The same config and seed give the same weights on the same CPU."""

    dataset: str  # a built-in name, or that of an uploaded data set
    model: str = "tutorial-cnn"  # one of known_models()
    epochs: int = 2  # passes over the training images, 1 to 100,000
    batch_size: int = 4  # images a step, 1 to 65,536
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    augment: tuple[str, ...] = ()  # applied in this order; see Augmentation
    precision: str = "auto"  # one of PRECISIONS
    label_smoothing: float = 0.0  # share of the target spread over all classes, 0 <= x < 1
    validation: float = 0.0  # share of the training images kept to choose the best checkpoint, 0 <= x <= 0.5
    max_bad_images: int = 0  # images that may fail to decode before the data count as corrupt
    seed: int = 0  # 0 to 2**63 - 1
    checkpoint_every_epochs: int | None = None  # exactly one of these two is set; neither given: 1 epoch
    checkpoint_every_steps: int | None = None

    def __post_init__(self) -> None:
        """Raise InvalidInput for a value out of range."""
        choose("model", self.model, known_models())
        choose("precision", self.precision, PRECISIONS)
        within("epochs", self.epochs, 1, 100_000)
        within("batch_size", self.batch_size, 1, 65_536)
        within("label_smoothing", self.label_smoothing, 0, 0.9999)
        within("validation", self.validation, 0, 0.5)
        within("max_bad_images", self.max_bad_images, 0, 10**9)
        within("seed", self.seed, 0, 2**63 - 1)
        for text in self.augment:
            Augmentation.parse(text)
        self._check_checkpoints()

    def _check_checkpoints(self) -> None:
        if self.checkpoint_every_epochs is None and self.checkpoint_every_steps is None:
            object.__setattr__(self, "checkpoint_every_epochs", 1)
        if self.checkpoint_every_epochs is not None and self.checkpoint_every_steps is not None:
            raise InvalidInput("checkpoint_every_steps", "set beside checkpoint_every_epochs", "set one of the two")
        for name in ("checkpoint_every_epochs", "checkpoint_every_steps"):
            every = getattr(self, name)
            if every is not None:
                within(name, every, 1, 10**9)

    @property
    def augmentations(self) -> tuple[Augmentation, ...]:
        """``augment``, parsed."""
        return tuple(Augmentation.parse(text) for text in self.augment)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read what ``to_document`` made; raises InvalidInput with the field, the value and what is allowed."""
        return read(cls, document, "")

    def to_document(self) -> dict[str, Any]:
        """Return the config as JSON types."""
        return jsonable(dataclasses.asdict(self))


@dataclass(frozen=True, slots=True)
class DatasetSource:
    """Where a trainer finds its images."""

    name: str  # for messages; a built-in's name when there is no source
    cache: str  # folder for prepared data sets and downloads
    digest: str | None = None  # of an upload's bytes, `sha256:…`; the key in the cache
    source: str | None = None  # path of an archive or of a folder of class folders; None: a built-in
    cache_bytes: int = 0  # most that the cache may hold; 0: no limit
    prepared: str | None = None  # the prepared file, made already and kept by somebody who holds its lock
    downloads: str | None = None  # folder for built-ins as they were downloaded; None: in the cache


@dataclass(frozen=True, slots=True)
class CheckpointSource:
    """The checkpoint to go on from, or to evaluate."""

    path: str
    sha256: str  # 64 hexadecimal digits, checked before anything else is read
    step: int = 0
    epoch: int = 0  # completed


@dataclass(frozen=True, slots=True)
class Task:
    """All that a trainer process is given."""

    kind: str  # one of KINDS
    config: TrainConfig
    dataset: DatasetSource
    scratch: str  # folder, empty at the start, for all files that come out
    checkpoint: CheckpointSource | None = None
    threads: int = 1
    device: str = "cpu"  # cpu | cuda:N
    send_images: bool = False  # also send the test images, as one strip of tiles

    def __post_init__(self) -> None:
        """Raise InvalidInput for a value out of range."""
        choose("kind", self.kind, KINDS)
        within("threads", self.threads, 1, 4096)
        if not re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?", self.device):
            raise InvalidInput("device", f"{quoted(self.device)} is no device", "use cpu or cuda:0")
        if self.kind == "evaluate" and self.checkpoint is None:
            raise InvalidInput("checkpoint", "missing", "an evaluation needs one")

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read what ``to_document`` made; raises InvalidInput."""
        return read(cls, document, "")

    def to_document(self) -> dict[str, Any]:
        """Return the task as JSON types."""
        return jsonable(dataclasses.asdict(self))


@dataclass(frozen=True, slots=True)
class Interval:
    """How often a checkpoint is due."""

    unit: str = "epoch"  # epoch | step
    count: int = 1

    def __post_init__(self) -> None:
        """Raise InvalidInput for a value out of range."""
        choose("every.unit", self.unit, ("epoch", "step"))
        within("every.count", self.count, 1, 10**9)


@dataclass(frozen=True, slots=True)
class NotebookTask:
    """What ``python -m stoker.training.notebook`` is to run."""

    path: str  # of the .ipynb, from the working directory
    parameters: dict[str, Any] = field(default_factory=dict)  # JSON; set after the cell tagged `parameters`


@dataclass(frozen=True, slots=True)
class RunTask:
    """What a script or notebook finds, as JSON, in the file that STOKER_RUN names; read by ``current_run()``."""

    job: int  # its number
    attempt: int  # 1, 2, … within the job
    scratch: str  # folder for the files that messages name
    output: str  # folder whose files are kept with the job
    data: str  # folder with one folder for each of the job's data sets
    checkpoint: CheckpointSource | None = None  # to go on from
    every: Interval = field(default_factory=Interval)
    channel: int = 3  # descriptor of the socket to the supervisor
    notebook: NotebookTask | None = None
    secrets: tuple[str, ...] = ()  # names of variables whose values nobody shall see

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read what ``to_document`` made; raises InvalidInput."""
        return read(cls, document, "")

    def to_document(self) -> dict[str, Any]:
        """Return the task as JSON types."""
        return jsonable(dataclasses.asdict(self))
