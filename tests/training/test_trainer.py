"""The trainer as its supervisor sees it: messages, files, requests, failures."""

import itertools
import json
import os
import signal
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from stoker.training import datasets, models
from stoker.training.channel import Channel
from stoker.training.config import CheckpointSource, OptimizerConfig, ScheduleConfig, Task, TrainConfig
from stoker.training.trainer import run
from tests.training.children import Child, Message, finish, of_kind, source_of, task

SHORT = TrainConfig("digits", epochs=1, batch_size=64, optimizer=OptimizerConfig(lr=0.02))
LONG = TrainConfig("digits", epochs=1000, batch_size=16, checkpoint_every_epochs=1000)


@pytest.fixture(scope="module")
def finished(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Message], Path]:
    """A training of the digits that learns them."""
    scratch = tmp_path_factory.mktemp("finished")
    config = TrainConfig(
        "digits", epochs=10, batch_size=16, optimizer=OptimizerConfig(lr=0.02), schedule=ScheduleConfig("one-cycle")
    )
    return finish(task(config, cache, scratch, send_images=True)), scratch


def test_the_digits_are_learned(finished: tuple[list[Message], Path]) -> None:
    result = json.loads((finished[1] / "result.json").read_text())
    assert result["accuracy"] >= 0.95
    assert set(result) == {
        "accuracy", "loss", "per_class", "confusion", "classes", "test_images", "epochs", "train_seconds", "device",
        "notes",
    }  # fmt: skip
    assert (result["epochs"], result["test_images"], result["device"]) == (10, 355, "cpu")


def test_a_count_over_the_predictions_gives_the_accuracy(finished: tuple[list[Message], Path], cache: Path) -> None:
    result = json.loads((finished[1] / "result.json").read_text())
    rows = list(struct.iter_unpack("<HHf", (finished[1] / "predictions.bin").read_bytes()))
    labels = datasets.load(cache / "datasets/digits-v1.safetensors").test_labels.tolist()
    assert [label for label, _, _ in rows] == labels
    assert sum(label == predicted for label, predicted, _ in rows) / len(rows) == result["accuracy"]
    assert all(0.1 <= probability <= 1.0001 for _, _, probability in rows)
    sevens = [predicted for label, predicted, _ in rows if label == 7]
    assert sevens.count(7) / len(sevens) == result["per_class"]["7"]
    assert [sevens.count(number) for number in range(10)] == result["confusion"][7]


def test_the_messages_come_in_order(finished: tuple[list[Message], Path]) -> None:
    messages, scratch = finished
    kinds = [message["type"] for message in messages]
    assert kinds[0] == "started"
    assert [kind for kind in kinds if kind not in ("progress", "metrics", "checkpoint")] == [
        "started", "first_step", "images", "predictions", "result",
    ]  # fmt: skip
    assert kinds.index("result") > max(index for index, kind in enumerate(kinds) if kind == "checkpoint")
    steps = [message["step"] for message in of_kind(messages, "checkpoint")]
    assert steps == [91 * epoch for epoch in range(1, 11)]
    for message in of_kind(messages, "checkpoint"):
        assert (scratch / message["path"]).stat().st_size == message["bytes"]
        assert len(message["sha256"]) == 64
    last = of_kind([m for m in messages if m.get("phase") == "train"], "progress")[-1]
    assert (last["epoch"], last["epochs"], last["step"], last["steps"]) == (10, 10, 910, 910)


def test_curves_rise_in_step_and_loss_falls(finished: tuple[list[Message], Path]) -> None:
    curves: dict[str, list[tuple[int, float]]] = {}
    for message in of_kind(finished[0], "metrics"):
        curves.setdefault(message["key"], []).extend(zip(message["steps"], message["values"], strict=True))
    assert set(curves) == {"loss", "epoch_loss", "learning_rate"}
    for points in curves.values():
        assert all(earlier[0] < later[0] for earlier, later in itertools.pairwise(points))
    assert 200 <= len(curves["loss"]) <= 230
    assert curves["epoch_loss"][-1][1] < curves["epoch_loss"][0][1] / 4
    assert max(rate for _, rate in curves["learning_rate"]) == pytest.approx(0.02, rel=0.05)


def test_the_test_images_are_sent_as_tiles(finished: tuple[list[Message], Path], cache: Path) -> None:
    (about,) = of_kind(finished[0], "images")
    assert (about["count"], about["height"], about["width"], about["channels"]) == (355, 32, 32, 3)
    raw = torch.frombuffer(bytearray((finished[1] / about["path"]).read_bytes()), dtype=torch.uint8)
    expected = datasets.load(cache / "datasets/digits-v1.safetensors").test_images.permute(0, 2, 3, 1)
    assert torch.equal(raw.view(355, 32, 32, 3), expected)


def test_another_seed_trains_otherwise_and_the_same_one_does_not(cache: Path, tmp_path: Path) -> None:
    sums = []
    for number, seed in enumerate((0, 0, 1)):
        config = TrainConfig("digits", epochs=1, batch_size=256, seed=seed)
        finish(task(config, cache, tmp_path / str(number)))
        sums.append((tmp_path / str(number) / "predictions.bin").read_bytes())
    assert sums[0] == sums[1] != sums[2]


def test_evaluating_a_checkpoint_gives_what_the_training_gave(
    finished: tuple[list[Message], Path], cache: Path, tmp_path: Path
) -> None:
    messages, scratch = finished
    last = source_of(of_kind(messages, "checkpoint")[-1], scratch)
    evaluated = finish(task(SHORT, cache, tmp_path, kind="evaluate", checkpoint=last))
    assert [message["type"] for message in evaluated if message["type"] != "progress"] == [
        "started",
        "predictions",
        "result",
    ]
    assert (tmp_path / "predictions.bin").read_bytes() == (scratch / "predictions.bin").read_bytes()


def test_a_checkpoint_is_written_when_asked_for(cache: Path, tmp_path: Path) -> None:
    with Child(task(LONG, cache, tmp_path)) as child:
        child.until("first_step")
        for _ in range(3):
            child.ask("checkpoint")
            assert (tmp_path / child.until("checkpoint")["path"]).exists()


@pytest.mark.parametrize("how", ["message", "SIGTERM"])
def test_a_stop_leaves_a_checkpoint_of_the_last_step(how: str, cache: Path, tmp_path: Path) -> None:
    with Child(task(LONG, cache, tmp_path)) as child:
        child.until("first_step")
        if how == "SIGTERM":
            os.kill(child.pid, signal.SIGTERM)
        else:
            child.ask("stop")
        checkpoint = child.until("checkpoint")
        assert child.until("stopped")["step"] == checkpoint["step"]
        assert child.wait() == 0
        assert not list(tmp_path.glob(".*"))


def test_a_trainer_without_a_supervisor_ends(cache: Path, tmp_path: Path) -> None:
    with Child(task(LONG, cache, tmp_path)) as child:
        child.until("first_step")
        child.socket.shutdown(2)
        assert child.wait() == 1


def test_nonsense_requests_are_passed_over(cache: Path, tmp_path: Path) -> None:
    with Child(task(LONG, cache, tmp_path)) as child:
        child.until("first_step")
        child.socket.sendall(b'nonsense\n[]\n{"type": 7}\n{"type": "dance"}\n' + b"[" * 100_000 + b"\n" + b"\xff\n")
        child.ask("stop")
        assert child.until("stopped")


def failure_of(given: Task) -> Message:
    messages = finish(given)
    assert messages[-1]["type"] == "failure"
    return messages[-1]


def test_a_loss_that_is_no_number_ends_the_training(cache: Path, tmp_path: Path) -> None:
    config = TrainConfig("digits", epochs=5, batch_size=16, optimizer=OptimizerConfig(lr=1000.0))
    failure = failure_of(task(config, cache, tmp_path))
    assert failure["class"] == "nan_loss"
    assert "at step" in failure["evidence"]
    assert "lower learning rate" in failure["fix"]


def diverging(given: Task, channel: Channel) -> int:
    """A trainer whose network has diverged by the time it is evaluated."""
    plain = models.TutorialCnn.forward

    def forward(self: models.TutorialCnn, images: torch.Tensor) -> torch.Tensor:
        return plain(self, images) * (1 if self.training else float("inf"))

    models.TutorialCnn.forward = forward  # type: ignore[method-assign]  # in the forked process only
    return run(given, channel)


@pytest.mark.parametrize(("part", "validation"), [("test", 0.0), ("validation", 0.1)])
def test_a_network_that_diverged_in_its_last_step_is_called_diverged(
    part: str, validation: float, cache: Path, tmp_path: Path
) -> None:
    config = TrainConfig("digits", epochs=1, batch_size=256, validation=validation)
    with Child(task(config, cache, tmp_path), diverging) as child:
        failure = child.until("failure")
    assert failure["class"] == "nan_loss"
    assert f"the {part} loss is" in failure["evidence"]
    assert not (tmp_path / "result.json").exists()


MISMATCHES: dict[str, dict[str, Any]] = {
    "seed": {"seed": 99},
    "model": {"model": "fast"},
    "batch_size": {"batch_size": 32},
    "augment": {"augment": ("flip",)},
}


@pytest.mark.parametrize("field", list(MISMATCHES))
def test_a_checkpoint_of_another_run_is_refused(
    field: str, finished: tuple[list[Message], Path], cache: Path, tmp_path: Path
) -> None:
    messages, scratch = finished
    source = source_of(of_kind(messages, "checkpoint")[0], scratch)
    config = TrainConfig.from_document({**SHORT.to_document(), **MISMATCHES[field], "epochs": 10})
    failure = failure_of(task(config, cache, tmp_path, checkpoint=source))
    assert failure["class"] == "checkpoint_mismatch"


def test_a_damaged_checkpoint_is_refused(finished: tuple[list[Message], Path], cache: Path, tmp_path: Path) -> None:
    messages, scratch = finished
    path = scratch / of_kind(messages, "checkpoint")[0]["path"]
    failure = failure_of(task(SHORT, cache, tmp_path, checkpoint=CheckpointSource(str(path), "0" * 64)))
    assert failure["class"] == "checkpoint_mismatch"
    assert "damaged" in failure["evidence"]


def test_bad_images_fail_or_are_noted(cache: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in ("cat", "dog"):
        (data / name).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (32, 32), (number * 40, 0, 200 if name == "cat" else 0)).save(
                data / name / f"{number}.png"
            )
    (data / "cat/zz.png").write_bytes(b"not an image")
    config = TrainConfig("mine", epochs=1)
    failure = failure_of(task(config, cache, tmp_path / "a", source=data))
    assert failure["class"] == "data_corrupt"
    assert "cat/zz.png" in failure["evidence"]
    allowed = TrainConfig("mine", epochs=1, max_bad_images=1)
    messages = finish(task(allowed, cache, tmp_path / "b", source=data))
    assert "cat/zz.png" in of_kind(messages, "note")[0]["text"]
    (about,) = of_kind(finish(task(allowed, cache, tmp_path / "c", source=data, kind="prepare")), "prepared")
    assert (about["classes"], about["train_images"], about["test_images"]) == (["cat", "dog"], 10, 2)
    assert about["bad_count"] == 1


def test_data_that_are_not_there_are_named(cache: Path, tmp_path: Path) -> None:
    assert failure_of(task(TrainConfig("mine"), cache, tmp_path))["class"] == "data_missing"


def with_parts(given: Task, channel: Channel) -> int:
    """A trainer whose network takes no more than 20 images at once, as a GPU with little memory would."""
    plain = models.TutorialCnn.forward

    def forward(self: models.TutorialCnn, images: torch.Tensor) -> torch.Tensor:
        if self.training and len(images) > 20:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return plain(self, images)

    models.TutorialCnn.forward = forward  # type: ignore[method-assign]  # in the forked process only
    return run(given, channel)


def test_a_batch_too_large_for_the_gpu_is_computed_in_parts(cache: Path, tmp_path: Path) -> None:
    whole = finish(task(SHORT, cache, tmp_path / "whole"))
    with Child(task(SHORT, cache, tmp_path / "parts"), with_parts) as child:
        parts = list(child.messages())
    result = json.loads((tmp_path / "parts/result.json").read_text())
    assert "in 4 parts" in result["notes"][-1]
    losses = [of_kind(messages, "checkpoint")[-1]["metrics"]["loss"] for messages in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)  # the same mathematics, summed in another order


def broken(given: Task, channel: Channel) -> int:
    """A trainer with a bug in its network."""

    def forward(self: models.TutorialCnn, images: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError("a bug")

    models.TutorialCnn.forward = forward  # type: ignore[method-assign]  # in the forked process only
    return run(given, channel)


def test_a_bug_is_shown_with_its_traceback(cache: Path, tmp_path: Path) -> None:
    with Child(task(SHORT, cache, tmp_path), broken) as child:
        failure = child.until("failure")
        assert failure["class"] == "user_error"
        assert "ZeroDivisionError: a bug" in failure["evidence"]
        assert child.wait() == 1
