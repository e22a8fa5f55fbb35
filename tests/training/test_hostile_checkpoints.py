"""A checkpoint whose digest is right and whose content is hostile ends its job with a reason, and executes nothing."""

import hashlib
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from stoker.training.config import CheckpointSource, OptimizerConfig, TrainConfig
from tests.training.children import finish, of_kind, source_of, task

CONFIG = TrainConfig("digits", epochs=2, batch_size=64, optimizer=OptimizerConfig(lr=0.02, momentum=0.9))
Tensors = dict[str, Tensor]
Change = Callable[[Tensors, dict[str, str]], object]


@pytest.fixture(scope="module")
def real(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> CheckpointSource:
    """A good one, in the middle of a training."""
    scratch = tmp_path_factory.mktemp("real")
    return source_of(of_kind(finish(task(CONFIG, cache, scratch)), "checkpoint")[0], scratch)


def fails_with(content: bytes, cache: Path, folder: Path) -> str:
    """What a trainer says that is given this checkpoint, whose digest is right."""
    path = folder / "hostile"
    path.write_bytes(content)
    source = CheckpointSource(str(path), hashlib.sha256(content).hexdigest(), 1)
    messages = finish(task(CONFIG, cache, folder / "scratch", checkpoint=source))
    assert not of_kind(messages, "first_step")
    assert messages[-1]["type"] == "failure"
    assert messages[-1]["class"] == "checkpoint_mismatch", messages[-1]["evidence"]
    return str(messages[-1]["evidence"])


def weight(name: str, value: Callable[[Tensor], Tensor | None]) -> Change:
    """Put something in a tensor's place, or nothing."""

    def change(tensors: Tensors, _: dict[str, str]) -> None:
        new = value(tensors.pop(name))
        if new is not None:
            tensors[name] = new

    return change


CHANGES: dict[str, tuple[Change, str]] = {
    "not a number": (weight("model.fc1.bias", lambda old: torch.full_like(old, float("nan"))), "NaN"),
    "another shape": (weight("model.fc3.weight", lambda old: old[:7]), "should be"),
    "a weight missing": (weight("model.conv1.bias", lambda _: None), "missing"),
    "a weight too many": (lambda tensors, _: tensors.update({"model.x": torch.zeros(2)}), "extra"),
    "an optimizer of another": (lambda tensors, _: tensors.update({"optimizer.99.x": torch.zeros(2)}), "belongs to no"),
    "momentum of another shape": (weight("optimizer.0.momentum_buffer", lambda _: torch.zeros(3)), "optimizer.0"),
    "random state missing": (weight("random.torch", lambda _: None), "random.torch"),
    "random state too short": (weight("random.torch", lambda old: old[:9].clone()), "RNG state size"),
    "no state": (lambda _, metadata: metadata.update(stoker=metadata["stoker"].replace("epoch_step", "x")), "KeyError"),
    "no metadata": (lambda _, metadata: metadata.clear(), "weights only"),
    "metadata that are no mapping": (lambda _, metadata: metadata.update(stoker="[]"), "another version"),
    "a deep document": (lambda _, metadata: metadata.update(stoker="[" * 100_000), "no JSON"),
}


@pytest.mark.parametrize("name", list(CHANGES))
def test_a_checkpoint_of_something_else_is_refused(
    name: str, real: CheckpointSource, cache: Path, tmp_path: Path
) -> None:
    change, word = CHANGES[name]
    tensors = safetensors.torch.load_file(real.path)
    with safetensors.safe_open(real.path, "pt") as file:
        metadata = dict(file.metadata())
    change(tensors, metadata)
    tensors = {key: value.contiguous() for key, value in tensors.items()}
    assert word in fails_with(safetensors.torch.save(tensors, metadata), cache, tmp_path)


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._path),)


def _saved(value: object, folder: Path) -> bytes:
    torch.save({"model": value}, folder / "saved.pt")
    return (folder / "saved.pt").read_bytes()


FILES: dict[str, Callable[[Bomb, bytes, Path], bytes]] = {
    "a pickle": lambda bomb, *_: pickle.dumps(bomb),
    "a pickle in a zip": lambda bomb, _, folder: _saved(bomb, folder),
    "a pickle for a tensor": lambda bomb, good, _: good[:-4096] + pickle.dumps(bomb),
    "cut": lambda _, good, __: good[: len(good) // 2],
    "longer": lambda _, good, __: good + bytes(8),
    "empty": lambda *_: b"",
    "a header without end": lambda _, good, __: struct.pack("<Q", 2**63) + good[8:],
}


@pytest.mark.parametrize("name", list(FILES))
def test_a_file_that_is_no_checkpoint_is_refused(
    name: str, real: CheckpointSource, cache: Path, tmp_path: Path
) -> None:
    content = FILES[name](Bomb(tmp_path / "exploded"), Path(real.path).read_bytes(), tmp_path)
    assert "damaged" in fails_with(content, cache, tmp_path)
    assert not (tmp_path / "exploded").exists()
