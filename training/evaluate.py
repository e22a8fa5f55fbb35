"""One pass over labelled images: what the network says, and how often it is right."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from stoker.training.batches import Form, normalise
from stoker.training.precision import Context

_BATCH_IMAGES = 500
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

    def confusion(self, classes: int) -> list[list[int]]:
        """Return how many images of each label (row) were taken for each class (column)."""
        counts = torch.bincount(self.labels * classes + self.predicted, minlength=classes**2)
        table: list[list[int]] = counts.view(classes, classes).tolist()
        return table

    def summary(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return accuracy, loss, accuracy per class (None for a class without images) and confusion."""
        confusion = self.confusion(len(classes))
        per_class = {
            name: row[number] / sum(row) if sum(row) else None
            for number, (name, row) in enumerate(zip(classes, confusion, strict=True))
        }
        return {"accuracy": self.accuracy, "loss": self.loss, "per_class": per_class, "confusion": confusion}


@torch.no_grad()
def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    form: Form,
    context: Context,
    watch: Callable[[int, int], None],
) -> Evaluation:
    """Evaluate a network; it is in training mode again afterwards, if it was before.

    Args:
        model: (N, 3, H, W) -> scores (N, classes).
        images: uint8 (N, C, H, W).
        labels: int64 (N,).
        form: How the model wants images.
        context: Entered around each forward pass.
        watch: Called with (images done, images in all) after each batch; may raise to stop.
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
        watch(min(start + batch, len(images)), len(images))
    model.train(was_training)
    return Evaluation(labels.cpu(), torch.cat(predicted), torch.cat(probability), loss / len(images))
