"""The parts of a training, each on its own: config, augmentation, batches, schedules, networks, evaluation, channel."""

import json
import math
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stoker.errors import InvalidInput
from stoker.training import augment, batches, evaluate, models, optimizers, precision, tiles
from stoker.training.batches import Batches, Form
from stoker.training.channel import Channel, ChannelClosed
from stoker.training.config import (
    TORCHVISION_MODELS,
    Augmentation,
    CheckpointSource,
    DatasetSource,
    OptimizerConfig,
    ScheduleConfig,
    Task,
    TrainConfig,
)

CPU = torch.device("cpu")


def test_what_the_api_uses_loads_no_torch() -> None:
    code = "import sys; from stoker.training import archives, cache, config, weights; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_task_survives_the_way_through_json() -> None:
    config = TrainConfig(
        "digits", augment=("flip", "translate(4)"), optimizer=OptimizerConfig("adamw", lr=1), checkpoint_every_steps=500
    )
    whole = Task("train", config, DatasetSource("digits", "/c"), "/s", CheckpointSource("/p", "0" * 64, 3), 2, "cuda:0")
    assert Task.from_document(json.loads(json.dumps(whole.to_document()))) == whole
    assert (config.checkpoint_every_epochs, TrainConfig("digits").checkpoint_every_epochs) == (None, 1)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"epohs": 1}, "epohs: unknown field; did you mean epochs?"),
    ({"epochs": True}, "epochs: true"),
    ({"epochs": "7"}, "epochs: '7'"),
    ({"epochs": 0}, "epochs: 0 is out of range"),
    ({"epochs": 10**400}, "epochs: this integer"),
    ({"batch_size": 3.5}, "batch_size: 3.5"),
    ({"optimizer": {"lr": float("nan")}}, "optimizer.lr: NaN"),
    ({"optimizer": {"lr": float("inf")}}, "optimizer.lr: Infinity"),
    ({"optimizer": {"lr": 0}}, "optimizer.lr: 0"),
    ({"optimizer": {"name": "sdg"}}, "choose sgd"),
    ({"optimizer": {"name": "adam", "nesterov": True}}, "optimizer.nesterov"),
    ({"optimizer": []}, "optimizer"),
    ({"schedule": {"name": "cosin"}}, "choose cosine"),
    ({"model": "resnet19"}, "choose resnet18"),
    ({"augment": ["flip(2)"]}, "takes no argument"),
    ({"augment": ["translate"]}, "number of pixels"),
    ({"augment": ["translate(9999)"]}, "number of pixels"),
    ({"augment": "flip"}, "augment"),
    ({"validation": 0.9}, "validation"),
    ({"checkpoint_every_steps": 5, "checkpoint_every_epochs": 1}, "set one of the two"),
    ({"checkpoint_every_steps": 0}, "checkpoint_every_steps"),
    ({"precision": None}, "precision"),
]


@pytest.mark.parametrize(("change", "words"), REFUSED)
def test_a_wrong_config_is_refused_by_field(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        TrainConfig.from_document({"dataset": "digits", **change})
    assert words in str(caught.value)


def test_the_names_of_torchvision_are_those_that_are_installed() -> None:
    assert sorted(TORCHVISION_MODELS) == sorted(torchvision.models.list_models(module=torchvision.models))


@pytest.mark.parametrize("name", ["tutorial-cnn", "fast", "resnet18", "mobilenet_v3_small", "googlenet", "alexnet"])
def test_networks_take_the_images_they_ask_for(name: str) -> None:
    form = models.input_form(name, 28, 28, CPU)
    model = models.create(name, 7)
    images = batches.normalise(torch.randint(0, 256, (2, 1, 28, 28), dtype=torch.uint8), form)
    assert images.shape == (2, 3, form.height, form.width)
    assert model(images).shape == (2, 7)


def test_the_tutorial_network_has_its_parameters() -> None:
    assert sum(parameter.numel() for parameter in models.create("tutorial-cnn", 10).parameters()) == 62_006


def test_the_first_layer_of_fast_whitens() -> None:
    model = models.create("fast", 10)
    assert isinstance(model, models.Fast)
    images = torch.randn(500, 3, 32, 32).cumsum(3) / 8  # neighbours alike, as in photographs
    model.adapt(images)
    values = model.whiten(images).permute(1, 0, 2, 3).flatten(1)[: model.COMPONENTS]
    assert torch.allclose(values @ values.T / values.shape[1], torch.eye(model.COMPONENTS), atol=0.1)


def made(count: int = 10, size: int = 6) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_a_flip_mirrors_or_leaves_each_image() -> None:
    images = made(64)
    flipped = augment.flip(images, torch.Generator().manual_seed(0))
    mirrored = [torch.equal(one, other.flip(2)) for one, other in zip(flipped, images, strict=True)]
    same = [torch.equal(one, other) for one, other in zip(flipped, images, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 16 < sum(mirrored) < 48


@given(st.integers(0, 5), st.integers(0, 2**32))
@settings(max_examples=40)
def test_a_translation_moves_each_image_as_a_whole(shift: int, seed: int) -> None:
    images = made(4)
    moved = augment.translate(images, shift, torch.Generator().manual_seed(seed))
    padded = nn.functional.pad(images, (shift,) * 4, mode="reflect")
    for one, wide in zip(moved, padded, strict=True):
        places = [(y, x) for y in range(2 * shift + 1) for x in range(2 * shift + 1)]
        assert any(torch.equal(one, wide[:, y : y + 6, x : x + 6]) for y, x in places)


def test_every_translation_occurs() -> None:
    images = torch.arange(36.0).view(1, 1, 6, 6).expand(2000, 1, 6, 6)
    moved = augment.translate(images, 1, torch.Generator().manual_seed(0))
    corners, counts = torch.unique(moved[:, 0, 2, 2], return_counts=True)
    assert len(corners) == 9
    assert counts.min() > 150


def test_a_translation_beyond_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        augment.translate(made(), 6, torch.Generator())


def test_a_cutout_blanks_one_square() -> None:
    images = torch.ones(500, 3, 12, 12)
    cut = augment.cutout(images, 4, torch.Generator().manual_seed(0)) == 0
    sizes = cut[:, 0].flatten(1).sum(1)
    assert sizes.max() == 16
    assert sizes.min() >= 4  # a corner
    assert torch.equal(cut[:, 0], cut[:, 2])


def batches_of(count: int, batch_size: int, augmentations: tuple[Augmentation, ...] = (), seed: int = 0) -> Batches:
    images = torch.arange(count).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).to(torch.uint8)
    return Batches(
        images, torch.arange(count), torch.arange(count), batch_size=batch_size, form=Form(4, 4),
        augmentations=augmentations, seed=seed, device=CPU,
    )  # fmt: skip


@given(st.integers(1, 250), st.integers(1, 60))
@settings(max_examples=60)
def test_an_epoch_shows_every_image_once(count: int, batch_size: int) -> None:
    found = batches_of(count, batch_size)
    labels = [labels for _, labels in found.epoch(0, 0)]
    assert len(labels) == found.steps
    seen = torch.cat(labels).tolist()
    left_out = 1 if count % min(batch_size, count) == 1 and batch_size > 1 and count > 1 else 0
    assert len(set(seen)) == len(seen) == count - left_out


@given(st.integers(0, 40), st.integers(0, 3))
@settings(max_examples=40)
def test_a_start_in_the_middle_shows_what_a_whole_epoch_shows(first: int, epoch: int) -> None:
    steps = (Augmentation("flip"), Augmentation("translate", 1))
    whole = list(batches_of(200, 5, steps).epoch(epoch, 0))
    rest = list(batches_of(200, 5, steps).epoch(epoch, first))
    assert len(rest) == 40 - first
    for (images, labels), (again, same) in zip(whole[first:], rest, strict=True):
        assert torch.equal(images, again)
        assert torch.equal(labels, same)


def test_epochs_and_seeds_differ_in_order() -> None:
    orders = {
        tuple(torch.cat([labels for _, labels in batches_of(50, 5, seed=seed).epoch(epoch, 0)]).tolist())
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(orders) == 4


def test_a_validation_split_is_fixed_and_apart() -> None:
    training, kept = batches.split_validation(1000, 0.1, 5)
    assert (len(training), len(kept)) == (900, 100)
    assert not set(training.tolist()) & set(kept.tolist())
    assert torch.equal(kept, batches.split_validation(1000, 0.1, 5)[1])
    assert not torch.equal(kept, batches.split_validation(1000, 0.1, 6)[1])


def test_bytes_become_minus_one_to_one() -> None:
    values = batches.normalise(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1), Form(1, 1))
    assert values[:, 0, 0, 0].tolist() == [-1, 1]


def test_schedules_start_rise_and_fall() -> None:
    config = OptimizerConfig(lr=2.0)

    def rates(name: str) -> list[float]:
        return [optimizers.learning_rate(config, ScheduleConfig(name), step, 100) for step in range(100)]

    assert set(rates("constant")) == {2.0}
    assert rates("cosine")[0] == 2.0
    assert rates("cosine")[50] == pytest.approx(1.0)
    assert rates("cosine") == sorted(rates("cosine"), reverse=True)
    one = rates("one-cycle")
    assert one[0] == pytest.approx(0.2)
    assert max(one) == one[25] == pytest.approx(2.0)
    assert 0 < one[99] < 0.05


class Fixed(nn.Module):
    """Says what it was told: image n is of class ``answers[n]``."""

    def __init__(self, answers: list[int]) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.eye(3)[answers] * 3)
        self.at = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.at += len(images)
        return self.scores[self.at - len(images) : self.at]


def test_an_evaluation_counts_right() -> None:
    labels, answers = [0, 0, 0, 1, 1, 0], [0, 1, 0, 1, 2, 0]
    images = torch.zeros(6, 3, 2, 2, dtype=torch.uint8)
    context = precision.resolve(TrainConfig("digits"), CPU).context
    found = evaluate.evaluate(
        Fixed(answers),
        images,
        torch.tensor(labels),
        form=Form(2, 2),
        context=context,
        part="test",
        watch=lambda *_: None,
    )
    summary = found.summary(["a", "b", "c"])
    assert summary["accuracy"] == 4 / 6
    assert summary["per_class"] == {"a": 3 / 4, "b": 1 / 2, "c": None}
    assert summary["confusion"] == [[3, 1, 0], [0, 1, 1], [0, 0, 0]]
    sure = math.exp(3) / (math.exp(3) + 2)
    assert found.probability.tolist() == pytest.approx([sure] * 6)
    assert summary["loss"] == pytest.approx(-(4 * math.log(sure) + 2 * math.log((1 - sure) / 2)) / 6)


def test_a_result_of_very_many_classes_has_no_confusion_and_stays_small() -> None:
    classes = [f"class {number}" for number in range(65_535)]
    labels = torch.arange(len(classes))
    found = evaluate.Evaluation(labels, labels.roll(1).where(labels % 3 > 0, labels), labels.float(), 1.0)
    summary = found.summary(classes)
    assert summary["confusion"] is None
    assert summary["notes"] == ["confusion is left out: 65,535 classes, at most 500"]
    assert (summary["per_class"]["class 3"], summary["per_class"]["class 4"]) == (1.0, 0.0)
    assert len(json.dumps(summary)) < 4_000_000
    assert found.confusion(500 + 1) is None


def test_fp16_on_a_cpu_says_what_it_does_instead() -> None:
    chosen = precision.resolve(TrainConfig("digits", precision="fp16"), CPU)
    assert (chosen.name, chosen.scaler) == ("float32", None)
    assert "GPU" in chosen.note


def test_large_tiles_are_made_smaller(tmp_path: Path) -> None:
    about = tiles.write_tiles(torch.full((3, 3, 200, 100), 77, dtype=torch.uint8), tmp_path / "t")
    assert (about.count, about.height, about.width, about.channels) == (3, 64, 32, 3)
    assert (tmp_path / "t").read_bytes() == bytes([77]) * (3 * 64 * 32 * 3)


def test_the_channel_refuses_what_the_supervisor_would() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = Channel(theirs)
        with pytest.raises(ValueError, match="longer than"):
            channel.send({"type": "note", "text": "x" * 70_000})
        with pytest.raises(ValueError, match="JSON"):
            channel.send({"type": "note", "text": float("nan")})
        assert channel.requests() == []
        ours.sendall(b'{"type":"che')
        assert channel.requests() == []
        ours.sendall(b'ckpoint"}\n{"type":"stop"}\n')
        assert channel.requests() == ["checkpoint", "stop"]
        ours.close()
        with pytest.raises(ChannelClosed):
            channel.requests()
        with pytest.raises(ChannelClosed):
            channel.send({"type": "note"})
