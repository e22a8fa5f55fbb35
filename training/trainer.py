"""The trainer process: a task in; messages and files out. See ``run``."""

import contextlib
import json
import random
import signal
import socket
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from stoker.training import (
    batches,
    cache,
    checkpoint,
    datasets,
    evaluate,
    models,
    optimizers,
    precision,
    resume,
    tensorfile,
)
from stoker.training.batches import Batches, Form
from stoker.training.channel import Channel, ChannelClosed
from stoker.training.checkpoint import Written
from stoker.training.config import OptimizerConfig, Task
from stoker.training.datasets import Dataset
from stoker.training.diagnosis import explain
from stoker.training.evaluate import Evaluation
from stoker.training.loop import State, Stopped, Training
from stoker.training.reporter import Reporter
from stoker.training.tiles import write_tiles

_ADAPT_IMAGES = 2048  # enough for the first layer of ``fast``
_NAMED_BAD_IMAGES = 20
DOWNLOAD_SILENCE_SECONDS = 60  # then a built-in's download ends; torchvision would wait for ever
_CLASSES_BYTES = 32_000  # of class names in one message


def warm_up() -> None:
    """Touch what a first step touches, in a process that will be forked: one thread, no backward, no CUDA."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    with torch.no_grad():
        model, form = models.create("tutorial-cnn", 10), models.input_form("tutorial-cnn", 32, 32, cpu)
        optimizers.create(OptimizerConfig(), model.parameters(), cpu)
        images, labels = torch.zeros(8, 3, 32, 32, dtype=torch.uint8), torch.zeros(8, dtype=torch.int64)
        settings: dict[str, Any] = {"batch_size": 4, "form": form, "augmentations": (), "seed": 0, "device": cpu}
        for values, expected in Batches(images, labels, torch.arange(8), **settings).epoch(0, 0):
            functional.cross_entropy(model(values), expected)
    torch.set_num_threads(threads)


def run(task: Task, channel: Channel) -> int:
    """Do a task; returns the exit code of the process.

    Out come, as JSON lines: started, first_step, progress, metrics, checkpoint, note, prepared, images, predictions,
    result, and at last nothing more (0), ``stopped`` (0) or ``failure`` (1). Paths are relative to ``task.scratch``,
    and whoever takes a file may remove it. In come ``{"type": "checkpoint"}`` and ``{"type": "stop"}``; SIGTERM is a
    stop; at the end of the file the trainer ends at once. Call it in the main thread of a process of its own.
    """
    reporter = Reporter(channel)

    def stop(_signal: int, _frame: object) -> None:
        reporter.stop_asked = True

    signal.signal(signal.SIGTERM, stop)
    socket.setdefaulttimeout(DOWNLOAD_SILENCE_SECONDS)
    trainer = Trainer(task, reporter)
    try:
        trainer.work()
        reporter.flush()
    except ChannelClosed:
        return 1
    except Stopped:
        return _last_words(reporter, "stopped", step=trainer.step)
    except Exception as error:  # whatever it was, the user reads what and why
        failure = explain(error)
        words = {"class": failure.failure_class, "evidence": failure.evidence[:8000], "fix": failure.fix}
        _last_words(reporter, "failure", **words)
        return 1
    return 0


def _last_words(reporter: Reporter, kind: str, **fields: Any) -> int:
    try:
        reporter.send(kind, **fields)
    except ChannelClosed:
        return 1
    return 0


class Trainer:
    """One task, from data to result."""

    def __init__(self, task: Task, reporter: Reporter) -> None:
        self._task, self._config, self._reporter = task, task.config, reporter
        self._device = torch.device(task.device)
        self._scratch = Path(task.scratch)
        self._training: Training | None = None
        self._held = contextlib.ExitStack()  # the data's lock, to the end of the process

    @property
    def step(self) -> int:
        """Steps that were completed, over all attempts."""
        return self._training.state.step if self._training else 0

    def work(self) -> None:
        """Do the task."""
        torch.set_num_threads(self._task.threads)
        self._reporter.send("started", device=self._device_name(), torch=torch.__version__)
        dataset = self._prepare()
        if self._task.kind == "prepare":
            return
        self._seed()
        model = models.create(self._config.model, len(dataset.classes))
        height, width = dataset.train_images.shape[2:]
        form = models.input_form(self._config.model, height, width, self._device)
        model = model.to(self._device, memory_format=form.layout)  # type: ignore[call-overload]
        loaded = resume.load(self._task.checkpoint) if self._task.checkpoint else None
        chosen = precision.resolve(self._config, self._device)
        if self._task.kind == "train":
            training = self._training = self._assemble(dataset, model, form, chosen)
            self._begin(training, dataset, loaded)
            training.train()
        elif loaded:
            resume.restore_weights(model, loaded)
        self._finish(dataset, model, form, chosen)

    def _device_name(self) -> str:
        if self._device.type == "cpu":
            return "cpu"
        return torch.cuda.get_device_name(self._device)

    def _seed(self) -> None:
        seed = self._config.seed
        torch.default_generator.manual_seed(seed)  # torch.manual_seed asks every kind of device, which takes 4 ms
        if self._device.type == "cuda":
            torch.cuda.manual_seed(seed)
        np.random.seed(seed % 2**32)  # the global state is what other code draws from
        random.seed(seed)

    def _watch(self, phase: str, done: int, total: int) -> None:
        """Report progress inside a phase that has no checkpoints; stop there if asked to."""
        self._reporter.look()
        state = self._training.state if self._training else State()
        self._reporter.progress(phase, epoch=state.epoch, epochs=self._config.epochs, step=done, steps=max(done, total))
        if self._reporter.stop_asked:
            raise Stopped

    def _prepare(self) -> Dataset:
        def watch(done: int, total: int) -> None:
            self._watch("prepare", done, total)

        source = self._task.dataset
        path = Path(source.prepared) if source.prepared else None
        if path is None:
            path = datasets.prepare(source, threads=self._task.threads, watch=watch)
            self._held.enter_context(cache.locked(path, lambda: watch(0, 0), shared=True))
        dataset = datasets.load(path)
        if self._task.kind == "prepare":  # how many bad images are too many, each training decides
            self._announce(dataset)
            self._send_images(dataset)
            return dataset
        dataset.check_bad_images(self._config.max_bad_images)
        if dataset.bad_count:
            text = f"{dataset.bad_count} images do not decode and are left out: {'; '.join(dataset.bad_images[:5])}"
            self._reporter.send("note", text=text[:4000])
        return dataset

    def _announce(self, dataset: Dataset) -> None:
        classes = list(dataset.classes)
        if sum(len(json.dumps(name)) + 1 for name in classes) > _CLASSES_BYTES:
            classes = classes[:100]  # the file has them all
        self._reporter.send(
            "prepared",
            path=str(dataset.path),
            digest=dataset.digest,
            train_images=len(dataset.train_labels),
            test_images=len(dataset.test_labels),
            classes=classes,
            class_count=len(dataset.classes),
            bad_images=list(dataset.bad_images[:_NAMED_BAD_IMAGES]),
            bad_count=dataset.bad_count,
        )

    def _assemble(self, dataset: Dataset, model: nn.Module, form: Form, chosen: precision.Precision) -> Training:
        config, device = self._config, self._device
        training_places, validation_places = batches.split_validation(
            len(dataset.train_labels), config.validation, config.seed
        )
        return Training(
            config=config,
            model=model,
            optimizer=optimizers.create(config.optimizer, model.parameters(), device),
            precision=chosen,
            batches=Batches(
                dataset.train_images,
                dataset.train_labels,
                training_places,
                batch_size=config.batch_size,
                form=form,
                augmentations=config.augmentations,
                seed=config.seed,
                device=device,
            ),
            form=form,
            validation=(dataset.train_images[validation_places], dataset.train_labels[validation_places]),
            device=device,
            reporter=self._reporter,
            writer=checkpoint.Writer(self._scratch, device, self._checkpoint_written),
            run=self._identity(dataset),
            notes=[chosen.note] if chosen.note else [],
        )

    def _identity(self, dataset: Dataset) -> dict[str, Any]:
        """Return what must be the same for a training to go on exactly: the recipe, and the data themselves."""
        recipe = self._config.to_document()
        for free in ("dataset", "checkpoint_every_epochs", "checkpoint_every_steps", "max_bad_images"):
            del recipe[free]
        return {**recipe, "data": dataset.digest}

    def _begin(self, training: Training, dataset: Dataset, loaded: resume.Loaded | None) -> None:
        """Put a training where its checkpoint left it, or at its start."""
        if loaded is None:
            if isinstance(training.model, models.Fast):
                sample = dataset.train_images[:: max(1, len(dataset.train_labels) // _ADAPT_IMAGES)].to(self._device)
                training.model.adapt(batches.normalise(sample, training.form))
            return
        resume.check_same_run(loaded.document, training.run)
        resume.restore_weights(training.model, loaded)
        resume.restore_optimizer(training.optimizer, loaded)
        with resume.reading():
            training.state = State.from_document(loaded.document["state"])
            training.notes = loaded.document["notes"]
            training.saved_step = training.state.step
            if training.precision.scaler and "scaler" in loaded.document:
                training.precision.scaler.load_state_dict(loaded.document["scaler"])
            checkpoint.set_random_states(loaded.tensors, loaded.document["random"], self._device)

    def _checkpoint_written(self, written: Written) -> None:
        fields = asdict(written)
        message = fields.pop("message")
        self._reporter.announce("checkpoint", **fields, **message)

    def _finish(self, dataset: Dataset, model: nn.Module, form: Form, chosen: precision.Precision) -> None:
        """Evaluate the final weights; write predictions, images and result."""

        def watch(done: int, total: int) -> None:
            self._watch("evaluate", done, total)

        images, labels = dataset.test_images, dataset.test_labels
        found = evaluate.evaluate(model, images, labels, form=form, context=chosen.context, part="test", watch=watch)
        if self._task.send_images:
            self._send_images(dataset)
        tensorfile.write(self._scratch / "predictions.bin", b"", [found.rows()])
        self._reporter.send("predictions", path="predictions.bin", count=len(found.labels))
        tensorfile.write(self._scratch / "result.json", b"", [json.dumps(self._result(dataset, found)).encode()])
        self._reporter.send("result", path="result.json")

    def _result(self, dataset: Dataset, found: Evaluation) -> dict[str, Any]:
        state = self._training.state if self._training else State()
        summary = found.summary(dataset.classes)
        return {
            **summary,
            "classes": list(dataset.classes),
            "test_images": len(found.labels),
            "epochs": state.epoch,
            "train_seconds": round(state.train_seconds, 3),
            "device": self._device_name(),
            "notes": (self._training.notes if self._training else []) + summary["notes"],
        }

    def _send_images(self, dataset: Dataset) -> None:
        if self._task.send_images:
            written = write_tiles(dataset.test_images, self._scratch / "images.bin")
            self._reporter.send("images", path="images.bin", **asdict(written))
