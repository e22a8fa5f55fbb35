"""One pass over labelled images: what the network says, and how often it is right."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from stoker.training.batches import Form, normalise
from stoker.training.failure import nan_loss
from stoker.training.precision import Context

_BATCH_IMAGES = 500
CONFUSION_CLASSES = 500  # with more, nobody reads the table, which grows with their square
_BATCH_VALUES = 500 * 3 * 32 * 32 * 8  # fewer images at a time where they are larger


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a network says about N images, in their order, on the CPU."""

    labels: Tensor  # int64 (N,)
    predicted: Tensor  # int64 (N,)
    probability: Tensor  # float32 (N,), of the predicted class
    loss: float  # mean cross-entropy

    @property
    def accuracy(self) -> float:
        """Share of the images whose predicted class is their label."""
        return int((self.predicted == self.labels).sum()) / len(self.labels)

    def rows(self) -> bytes:
        """Return (label, predicted, probability) of each image as little-endian uint16, uint16, float32."""
        rows = np.empty(len(self.labels), [("label", "<u2"), ("predicted", "<u2"), ("probability", "<f4")])
        rows["label"], rows["predicted"] = self.labels.numpy(), self.predicted.numpy()
        rows["probability"] = self.probability.numpy()
        return rows.tobytes()

    def confusion(self, classes: int) -> list[list[int]] | None:
        """Return how many images of each label (row) were taken for each class (column).

        None where there are more than ``CONFUSION_CLASSES``: of 65,535 classes the table would take 34 GB.
        """
        if classes > CONFUSION_CLASSES:
            return None
        counts = torch.bincount(self.labels * classes + self.predicted, minlength=classes**2)
        table: list[list[int]] = counts.view(classes, classes).tolist()
        return table

    def per_class(self, classes: Sequence[str]) -> dict[str, float | None]:
        """Return the share of each class's images that were recognised; None for a class without images."""
        images = torch.bincount(self.labels, minlength=len(classes)).tolist()
        right = torch.bincount(self.labels[self.predicted == self.labels], minlength=len(classes)).tolist()
        return {name: right[number] / images[number] if images[number] else None for number, name in enumerate(classes)}

    def summary(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return accuracy, loss, accuracy per class and confusion, and in ``notes`` what was left out."""
        confusion = self.confusion(len(classes))
        notes = [] if confusion else [f"confusion is left out: {len(classes):,} classes, at most {CONFUSION_CLASSES}"]
        return {
            "accuracy": self.accuracy,
            "loss": self.loss,
            "per_class": self.per_class(classes),
            "confusion": confusion,
            "notes": notes,
        }


@torch.no_grad()
def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    form: Form,
    context: Context,
    part: str,
    watch: Callable[[int, int], None],
) -> Evaluation:
    """Evaluate a network; it is in training mode again afterwards, if it was before.

    Args:
        model: (N, 3, H, W) -> scores (N, classes).
        images: uint8 (N, C, H, W).
        labels: int64 (N,).
        form: How the model wants images.
        context: Entered around each forward pass.
        part: What the images are, test or validation; for the error.
        watch: Called with (images done, images in all) after each batch; may raise to stop.

    Raises TrainingFailed (``nan_loss``).
    """
    device = next(model.parameters()).device
    batch = max(1, min(_BATCH_IMAGES, _BATCH_VALUES // form.values))
    was_training = model.training
    model.eval()
    predicted, probability, loss = [], [], 0.0
    for start in range(0, len(images), batch):
        expected = labels[start : start + batch].to(device)
        with context():
            scores = model(normalise(images[start : start + batch].to(device), form)).float()
        best = functional.softmax(scores, 1).max(1)
        predicted.append(best.indices.cpu())
        probability.append(best.values.cpu())
        loss += functional.cross_entropy(scores, expected, reduction="sum").item()
        if not math.isfinite(loss):
            raise nan_loss(f"the {part} loss is {loss} over the first {min(start + batch, len(images)):,} images")
        watch(min(start + batch, len(images)), len(images))
    model.train(was_training)
    return Evaluation(labels.cpu(), torch.cat(predicted), torch.cat(probability), loss / len(images))
