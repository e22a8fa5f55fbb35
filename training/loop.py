"""The training loop."""

import time
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from stoker.errors import StokerError
from stoker.training import checkpoint, evaluate, optimizers
from stoker.training.batches import Batches, Form
from stoker.training.config import TrainConfig
from stoker.training.failure import nan_loss
from stoker.training.precision import Precision
from stoker.training.reporter import Reporter

_LOSS_POINTS = 200  # of the curve of a whole training


class Stopped(StokerError):
    """The trainer was asked to stop, and everything it has done is in a checkpoint."""

    code = "stopped"


@dataclass(slots=True)
class State:
    """Where a training stands, beside weights, optimizer and random generators."""

    epoch: int = 0  # completed
    epoch_step: int = 0  # completed, of the current epoch
    step: int = 0  # completed, in all
    epoch_loss: float = 0.0  # sum over the steps of the current epoch
    interval_loss: float = 0.0  # sum since the last point of the curve
    interval_steps: int = 0
    last_loss: float | None = None  # mean of the last completed epoch
    parts: int = 1  # micro-batches a batch is cut into, after the GPU ran out of memory
    train_seconds: float = 0.0  # over all attempts

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Self:
        """Read what ``asdict`` made."""
        return cls(**{one.name: document[one.name] for one in fields(cls)})


@dataclass(slots=True)
class Training:
    """All parts of one training."""

    config: TrainConfig
    model: nn.Module
    optimizer: torch.optim.Optimizer
    precision: Precision
    batches: Batches
    form: Form
    validation: tuple[Tensor, Tensor]  # images uint8 (N, C, H, W), labels int64 (N,); N may be 0
    device: torch.device
    reporter: Reporter
    writer: checkpoint.Writer
    run: dict[str, Any]  # what a checkpoint must agree with
    state: State = field(default_factory=State)
    notes: list[str] = field(default_factory=list)
    saved_step: int = -1
    checkpoint_due: bool = False
    first_step_done: bool = False  # in this process

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return self.batches.steps * self.config.epochs

    def train(self) -> None:
        """Go from where the state stands to the end, and see the last checkpoint written.

        Raises Stopped, ChannelClosed, TrainingFailed (``nan_loss``).
        """
        self.model.train()
        while self.state.epoch < self.config.epochs:
            self._train_epoch()
            self._finish_epoch()
        self.writer.wait()
        self.report(force=True)

    def _train_epoch(self) -> None:
        started = time.monotonic()
        for images, labels in self.batches.epoch(self.state.epoch, self.state.epoch_step):
            self._set_learning_rate()
            loss = self._step(images, labels)
            self._count(loss, len(images))
            if not self.first_step_done:
                self._after_first_step()
            if (self.checkpoint_due or self.reporter.due()) and self.state.epoch_step < self.batches.steps:
                self.state.train_seconds += time.monotonic() - started
                started = time.monotonic()
                self._between_steps()
        self.state.train_seconds += time.monotonic() - started

    def _step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Make one step; where the GPU's memory is too small, in ever smaller parts whose gradients are added up."""
        while True:
            try:
                return self._step_in_parts(images, labels)
            except torch.cuda.OutOfMemoryError:
                if self.state.parts >= len(images):
                    raise
                self._halve_parts()

    def _step_in_parts(self, images: Tensor, labels: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        if self.state.parts == 1:
            loss = self._backward(images, labels)
        else:
            loss = torch.zeros((), device=self.device)
            for part, expected in zip(images.chunk(self.state.parts), labels.chunk(self.state.parts), strict=True):
                loss += self._backward(part, expected, share=len(part) / len(images))
        if self.precision.scaler:
            self.precision.scaler.step(self.optimizer)
            self.precision.scaler.update()
        else:
            self.optimizer.step()
        return loss

    def _backward(self, images: Tensor, labels: Tensor, share: float = 1.0) -> Tensor:
        with self.precision.context():
            scores = self.model(images)
            loss = functional.cross_entropy(scores, labels, label_smoothing=self.config.label_smoothing)
        if share != 1.0:
            loss = loss * share
        if self.precision.scaler:
            self.precision.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        else:
            loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _halve_parts(self) -> None:
        self.state.parts *= 2
        self.optimizer.zero_grad()
        torch.cuda.empty_cache()
        note = f"the GPU's memory was too small: each batch is computed in {self.state.parts} parts"
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.model.modules()):
            note += "; BatchNorm sees the parts, so the result differs from that of whole batches"
        self.notes.append(note)
        self.reporter.send("note", text=note)

    def _set_learning_rate(self) -> None:
        if self.config.schedule.name == "constant":
            return
        rate = optimizers.learning_rate(self.config.optimizer, self.config.schedule, self.state.step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _count(self, loss: Tensor, images: int) -> None:
        value = loss.item()  # free on a CPU; a GPU waits here, and in return no step after a NaN is made
        state = self.state
        state.step += 1
        state.epoch_step += 1
        if value - value != 0:  # NaN or an infinity
            raise nan_loss(f"the loss is {value} at step {state.step} (epoch {state.epoch + 1})")
        state.epoch_loss += value
        state.interval_loss += value
        state.interval_steps += 1
        self.reporter.counts(images)
        if state.step % max(1, self.steps // _LOSS_POINTS) == 0:
            self._close_interval()
        every = self.config.checkpoint_every_steps
        if every and state.step % every == 0:
            self.checkpoint_due = True

    def _close_interval(self) -> None:
        state = self.state
        self.reporter.metric("loss", state.step, state.interval_loss / state.interval_steps)
        self.reporter.metric("learning_rate", state.step, self.optimizer.param_groups[0]["lr"])
        state.interval_loss, state.interval_steps = 0.0, 0

    def _after_first_step(self) -> None:
        self.first_step_done = True
        self.reporter.send("first_step", seconds=time.time())
        self.writer.warm(checkpoint.tensors_of(self.model, self.optimizer))

    def _between_steps(self) -> None:
        self.reporter.look()
        self.report()
        if self.reporter.stop_asked:
            self._stop()
        if (self.checkpoint_due or self.reporter.checkpoint_asked) and not self.writer.busy:
            self.save()

    def _stop(self) -> None:
        if self.saved_step != self.state.step and self.state.step:
            self.save()
        self.writer.wait()
        raise Stopped

    def _finish_epoch(self) -> None:
        """Validate, then count the epoch: one that is stopped in between is validated when the training goes on."""
        state = self.state
        metrics = self._validate()
        state.last_loss = state.epoch_loss / self.batches.steps
        state.epoch, state.epoch_step, state.epoch_loss = state.epoch + 1, 0, 0.0
        self.reporter.metric("epoch_loss", state.step, state.last_loss)
        if metrics:
            self.reporter.metric("validation_accuracy", state.step, metrics["validation_accuracy"])
        last = state.epoch == self.config.epochs
        if last and state.interval_steps:
            self._close_interval()
        every = self.config.checkpoint_every_epochs
        if metrics or self.checkpoint_due or (every and state.epoch % every == 0) or last:
            self.save(metrics)
        self._between_steps()

    def _validate(self) -> dict[str, float]:
        images, labels = self.validation
        if not len(images):
            return {}
        found = evaluate.evaluate(
            self.model,
            images,
            labels,
            form=self.form,
            context=self.precision.context,
            part="validation",
            watch=self._watch_validation,
        )
        return {"validation_accuracy": found.accuracy, "validation_loss": found.loss}

    def _watch_validation(self, done: int, total: int) -> None:
        self.reporter.look()
        state = self.state
        self.reporter.progress("evaluate", epoch=state.epoch, epochs=self.config.epochs, step=done, steps=total)
        if self.reporter.stop_asked:
            self._stop()

    def save(self, metrics: dict[str, float] | None = None) -> None:
        """Write a checkpoint of this moment."""
        self.reporter.flush()  # points up to this step are sent before the checkpoint that covers them
        tensors = checkpoint.tensors_of(self.model, self.optimizer)
        state = self.state
        document = {"state": asdict(state), "run": self.run, "notes": self.notes, "config": self.config.to_document()}
        if self.precision.scaler:
            document["scaler"] = self.precision.scaler.state_dict()
        told = dict(metrics or {})
        if state.last_loss is not None and state.epoch_step == 0:
            told["loss"] = state.last_loss
        self.writer.save(state.step, tensors, document, {"epoch": state.epoch, "metrics": told})
        self.saved_step = state.step
        self.checkpoint_due = self.reporter.checkpoint_asked = False

    def report(self, *, force: bool = False) -> None:
        """Say how far the training has come."""
        state = self.state
        self.reporter.progress(
            "train", epoch=state.epoch, epochs=self.config.epochs, step=state.step, steps=self.steps, force=force
        )
