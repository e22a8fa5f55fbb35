"""A checkpoint file -> a training that goes on as if it had never stopped."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stoker.quoting import quoted
from stoker.training import checkpoint, tensorfile
from stoker.training.checkpoint import OPTIMIZER, TORCH_DTYPES
from stoker.training.config import CheckpointSource
from stoker.training.failure import TrainingFailed
from stoker.training.tensorfile import TensorFileDamaged
from stoker.training.weights import PREFIX as MODEL

_NAMED = 5  # tensors that a message lists


@dataclass(frozen=True, slots=True)
class Loaded:
    """A verified checkpoint; tensors are mapped from the file, on the CPU."""

    tensors: dict[str, Tensor]
    document: dict[str, Any]


def load(source: CheckpointSource) -> Loaded:
    """Map a checkpoint after its SHA-256 has been checked. Nothing in it is ever executed.

    Raises TrainingFailed (``checkpoint_mismatch``): damaged, cut off, or no checkpoint.
    """
    path = Path(source.path)
    try:
        size = path.stat().st_size
        if size == 0:
            raise TensorFileDamaged("0 bytes are too few")
        mapped = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
        found = hashlib.sha256(mapped.numpy().data).hexdigest()
        if found != source.sha256:
            raise TensorFileDamaged(f"its SHA-256 is {found[:12]}… and should be {source.sha256[:12]}…")
        with path.open("rb") as file:
            header = tensorfile.read_header(file)
        return Loaded({one.name: _tensor(mapped, one, header.data_start) for one in header.entries}, _document(header))
    except (OSError, TensorFileDamaged) as error:
        raise mismatch(f"the checkpoint is damaged: {error}") from None


def _tensor(mapped: Tensor, one: tensorfile.Entry, start: int) -> Tensor:
    if one.dtype not in TORCH_DTYPES:
        raise TensorFileDamaged(f"tensor {quoted(one.name, 80)} is of type {one.dtype}")
    raw = mapped[start + one.begin : start + one.end]
    dtype = TORCH_DTYPES[one.dtype]
    aligned = (
        raw if raw.data_ptr() % dtype.itemsize == 0 and raw.storage_offset() % dtype.itemsize == 0 else raw.clone()
    )
    return aligned.view(dtype).view(one.shape)


def _document(header: tensorfile.Header) -> dict[str, Any]:
    try:
        document = json.loads(header.metadata.get("stoker", "{}"))
    except (ValueError, RecursionError):
        raise TensorFileDamaged("its metadata are no JSON") from None
    if not isinstance(document, dict) or document.get("format", checkpoint.FORMAT) != checkpoint.FORMAT:
        raise TensorFileDamaged("it was written by another version of Stoker")
    return document


def mismatch(evidence: str) -> TrainingFailed:
    """The error of a checkpoint that does not belong to what shall go on from it."""
    return TrainingFailed("checkpoint_mismatch", evidence, "go on from another checkpoint, or start from scratch")


@torch.no_grad()
def restore_weights(model: nn.Module, loaded: Loaded) -> None:
    """Copy weights and buffers into a model of the same architecture.

    Raises TrainingFailed (``checkpoint_mismatch``) with the names that are missing, too many or of another shape.
    """
    given = {name.removeprefix(MODEL): value for name, value in loaded.tensors.items() if name.startswith(MODEL)}
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in given]
    extra = [name for name in given if name not in wanted]
    shaped = [
        f"{name} is {tuple(given[name].shape)}, should be {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in given and given[name].shape != value.shape
    ]
    problems = [(word, names) for word, names in (("missing", missing), ("extra", extra), ("shape", shaped)) if names]
    if problems:
        listed = "; ".join(f"{word}: {', '.join(names[:_NAMED])} ({len(names)} in all)" for word, names in problems)
        raise mismatch(f"the checkpoint is of another model: {listed}")
    broken = [name for name, value in given.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise mismatch(f"the checkpoint holds NaN or infinite weights: {', '.join(broken[:_NAMED])}")
    for name, value in wanted.items():
        value.copy_(given[name])


@torch.no_grad()
def restore_optimizer(optimizer: torch.optim.Optimizer, loaded: Loaded) -> None:
    """Give an optimizer what it had kept of each weight.

    Raises TrainingFailed (``checkpoint_mismatch``).
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for name, value in loaded.tensors.items():
        if not name.startswith(OPTIMIZER):
            continue
        index, _, key = name.removeprefix(OPTIMIZER).partition(".")
        if not index.isdecimal() or int(index) >= len(parameters):
            raise mismatch(f"the checkpoint is of another model: {name} belongs to no weight")
        parameter = parameters[int(index)]
        if value.dim() and value.shape != parameter.shape:
            shapes = f"is {tuple(value.shape)}, should be {tuple(parameter.shape)}"
            raise mismatch(f"the checkpoint is of another model: {name} {shapes}")
        optimizer.state[parameter][key] = _like(value, parameter)


@contextmanager
def reading() -> Iterator[None]:
    """Turn what goes wrong in here, where a checkpoint's own words are taken for granted, into its reason.

    Raises TrainingFailed (``checkpoint_mismatch``).
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        words = f"{type(error).__name__}: {error}"
        raise mismatch(f"the checkpoint does not hold what a training goes on with: {words:.300}") from error


@torch.no_grad()
def lay_out(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Lay out again, like its weight, what ``load_state_dict(state)`` has given an optimizer to keep of each weight."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    for number, parameter in zip(numbers, parameters, strict=True):
        for key, value in state["state"].get(number, {}).items():
            if isinstance(value, Tensor) and value.dim() and value.shape == parameter.shape:
                optimizer.state[parameter][key] = _like(value, parameter)


def _like(value: Tensor, parameter: nn.Parameter) -> Tensor:
    """Copy a value into memory laid out like its weight: with other strides, other kernels round otherwise."""
    if value.shape != parameter.shape:
        return value.clone().to(parameter.device)
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def check_same_run(document: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raise TrainingFailed (``checkpoint_mismatch``) unless the checkpoint is of a run of the same data and recipe."""
    found = document.get("run")
    if not isinstance(found, dict):
        raise mismatch("the checkpoint holds weights only: a training cannot go on from it")
    different = [key for key, value in expected.items() if found.get(key) != value]
    if different:
        key = different[0]
        was, now = quoted(found.get(key), 80), quoted(expected[key], 80)
        raise mismatch(f"the checkpoint is of another run: {key} was {was}, is {now}")
