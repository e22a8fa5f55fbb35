"""A damaged or hostile checkpoint is found, and never executed."""

import hashlib
import json
import pickle
import random
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.training import checkpoint, models, optimizers, resume, tensorfile
from stoker.training.checkpoint import Written
from stoker.training.config import CheckpointSource, OptimizerConfig
from stoker.training.failure import TrainingFailed
from stoker.training.tensorfile import TensorFileDamaged
from stoker.training.weights import export_weights
from tests.support.checkpoints import CPU, stepped, written


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> CheckpointSource:
    return written(tmp_path_factory.mktemp("checkpoint"))


def test_what_was_written_is_read_again(good: CheckpointSource) -> None:
    model, optimizer = stepped()
    loaded = resume.load(good)
    other = models.create("tutorial-cnn", 10)
    again = optimizers.create(OptimizerConfig(lr=0.1), other.parameters(), CPU)
    resume.restore_weights(other, loaded)
    resume.restore_optimizer(again, loaded)
    for name, tensor in checkpoint.tensors_of(model, optimizer).items():
        assert torch.equal(tensor, checkpoint.tensors_of(other, again)[name]), name


def test_other_programs_can_read_it(good: CheckpointSource) -> None:
    tensors = safetensors.torch.load_file(good.path)
    assert torch.equal(tensors["model.fc3.bias"], stepped()[0].state_dict()["fc3.bias"])


def test_every_flipped_bit_is_found(good: CheckpointSource, tmp_path: Path) -> None:
    content, dice = bytearray(Path(good.path).read_bytes()), random.Random(1)
    path = tmp_path / "flipped"
    for _ in range(300):
        place, bit = dice.randrange(len(content)), 1 << dice.randrange(8)
        content[place] ^= bit
        path.write_bytes(content)
        content[place] ^= bit
        with pytest.raises(TrainingFailed, match="damaged"):
            resume.load(CheckpointSource(str(path), good.sha256))


@pytest.mark.parametrize("sixteenths", range(16))
def test_every_cut_is_found(good: CheckpointSource, tmp_path: Path, sixteenths: int) -> None:
    content = Path(good.path).read_bytes()
    path = tmp_path / "cut"
    path.write_bytes(content[: len(content) * sixteenths // 16])
    with pytest.raises(TrainingFailed, match="damaged"):
        resume.load(CheckpointSource(str(path), good.sha256))


def test_a_missing_file_is_a_damaged_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match="damaged"):
        resume.load(CheckpointSource(str(tmp_path / "gone"), "0" * 64))


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    for name, content in (("raw", pickle.dumps(Bomb())), ("torch", None)):
        path = tmp_path / name
        if content is None:
            torch.save({"x": Bomb()}, path)
        else:
            path.write_bytes(content)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        with pytest.raises(TrainingFailed, match="damaged"):
            resume.load(CheckpointSource(str(path), sha256))
    assert not (tmp_path / "exploded").exists()


def described(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}


HEADERS: dict[str, tuple[Any, bytes]] = {
    "no mapping": ([], b""),
    "no JSON": (b"{", b""),
    "deep": (b"[" * 100_000, b""),
    "not utf-8": (b"\xff\xfe", b""),
    "twice the same name": (b'{"a":{},"a":{}}', b""),
    "unknown type": ({"a": described(dtype="F99")}, bytes(8)),
    "type is a list": ({"a": described(dtype=[])}, bytes(8)),
    "negative size": ({"a": described(shape=[-2])}, bytes(8)),
    "true as a size": ({"a": described(shape=[True, 2])}, bytes(8)),
    "product beyond 2^64": ({"a": described(shape=[2**40, 2**40])}, bytes(8)),
    "shape and place differ": ({"a": described(shape=[3])}, bytes(8)),
    "reversed": ({"a": described(data_offsets=[8, 0])}, bytes(8)),
    "beyond the file": ({"a": described(data_offsets=[8, 16])}, bytes(8)),
    "hole": ({"a": described(), "b": described(data_offsets=[16, 24])}, bytes(24)),
    "overlap": ({"a": described(), "b": described(data_offsets=[4, 12])}, bytes(12)),
    "bytes left over": ({"a": described()}, bytes(9)),
    "missing key": ({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)),
    "metadata are numbers": ({"__metadata__": {"a": 1}}, b""),
    "many dimensions": ({"a": described(shape=[1] * 17 + [2])}, bytes(8)),
}


@pytest.mark.parametrize("name", list(HEADERS))
def test_a_hostile_header_is_refused(name: str, tmp_path: Path) -> None:
    header, data = HEADERS[name]
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    refused(tmp_path, struct.pack("<Q", len(raw)) + raw + data)


@pytest.mark.parametrize("length", [0, 1, 2**63, 2**64 - 1, 10**9])
def test_an_impossible_header_length_is_refused(length: int, tmp_path: Path) -> None:
    refused(tmp_path, struct.pack("<Q", length) + b"{}" + bytes(100))


def refused(folder: Path, content: bytes) -> None:
    path = folder / "hostile"
    path.write_bytes(content)
    with path.open("rb") as file, pytest.raises(TensorFileDamaged):
        tensorfile.read_header(file)


@given(st.binary(max_size=400))
@settings(max_examples=200)
def test_no_bytes_break_the_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz"
    path.write_bytes(struct.pack("<Q", len(content)) + content)
    with path.open("rb") as file:
        try:
            tensorfile.read_header(file)
        except TensorFileDamaged:
            pass


def test_another_architecture_is_refused_with_the_names(good: CheckpointSource) -> None:
    with pytest.raises(TrainingFailed, match=r"fc3.weight is \(10, 84\), should be \(7, 84\)"):
        resume.restore_weights(models.create("tutorial-cnn", 7), resume.load(good))
    with pytest.raises(TrainingFailed, match=r"missing: .*extra: conv1.weight"):
        resume.restore_weights(models.create("fast", 10), resume.load(good))


def test_weights_that_are_not_numbers_are_refused(good: CheckpointSource) -> None:
    loaded = resume.load(good)
    loaded.tensors["model.fc1.bias"][3] = float("nan")
    with pytest.raises(TrainingFailed, match=r"NaN.*fc1.bias"):
        resume.restore_weights(models.create("tutorial-cnn", 10), loaded)


def test_exported_weights_load_into_the_model(good: CheckpointSource, tmp_path: Path) -> None:
    nbytes, sha256 = export_weights(Path(good.path), tmp_path / "w.safetensors")
    content = (tmp_path / "w.safetensors").read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (nbytes, sha256)
    model = models.create("tutorial-cnn", 10)
    model.load_state_dict(safetensors.torch.load(content))
    assert torch.equal(model.state_dict()["conv1.weight"], stepped()[0].state_dict()["conv1.weight"])


def test_weights_of_no_checkpoint_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.zeros(2)}, tmp_path / "foreign")
    with pytest.raises(TensorFileDamaged, match="no weights"):
        export_weights(tmp_path / "foreign", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["foreign"]


def test_a_full_disk_is_told_at_the_next_checkpoint_and_leaves_nothing(tmp_path: Path) -> None:
    """/dev/full takes the place of the partial file."""
    announced: list[Written] = []
    writer = checkpoint.Writer(tmp_path, CPU, announced.append)
    (tmp_path / ".checkpoint-1.safetensors.partial").symlink_to("/dev/full")
    writer.save(1, checkpoint.tensors_of(*stepped()), {}, {})
    with pytest.raises(OSError, match="No space left"):
        writer.wait()
    assert not announced
    assert list(tmp_path.iterdir()) == []


def test_a_snapshot_does_not_change_with_the_weights(tmp_path: Path) -> None:
    model, optimizer = stepped()
    tensors = checkpoint.tensors_of(model, optimizer)
    snapshot = checkpoint.Snapshot(tensors, CPU)
    snapshot.take(tensors)
    before = bytes(snapshot.content())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert bytes(snapshot.content()) == before
    snapshot.take(tensors)
    assert bytes(snapshot.content()) != before


def test_a_copy_elsewhere_is_as_good(good: CheckpointSource, tmp_path: Path) -> None:
    shutil.copy(good.path, tmp_path / "copy")
    assert resume.load(CheckpointSource(str(tmp_path / "copy"), good.sha256)).document["step"] == 1
