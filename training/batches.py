"""Batches out of one tensor of bytes: no work per image in Python.

Which images a step sees, and how they are varied, depends on seed, epoch and step alone. So the position in the data is
the number of the step, and a run that starts in the middle of an epoch sees what it would have seen.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from stoker.training import augment
from stoker.training.config import Augmentation

_CHUNK_IMAGES = 128  # prepared at a time: 1.5 MB of 32×32×3 floats stay in the cache of a core, and are soon ready
_CHUNK_VALUES = 256 * 3 * 64 * 64  # fewer images where they are larger


def seeded(device: torch.device, *parts: object) -> torch.Generator:
    """Return a generator whose stream is named by ``parts``."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def split_validation(count: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the places (int64) of training and of validation images; no validation images where the share is 0."""
    if share == 0:
        return torch.arange(count), torch.arange(0)
    order = torch.randperm(count, generator=seeded(torch.device("cpu"), seed, "validation"))
    kept = min(max(1, round(count * share)), count - 1)
    return order[kept:].sort().values, order[:kept].sort().values


@dataclass(frozen=True, slots=True)
class Form:
    """How a model wants its images."""

    height: int  # pixels
    width: int
    layout: torch.memory_format = torch.contiguous_format

    @property
    def values(self) -> int:
        """Numbers in one image, of three channels."""
        return 3 * self.height * self.width


def normalise(images: Tensor, form: Form) -> Tensor:
    """Turn bytes into what a model sees.

    Args:
        images: uint8 (N, 1 or 3, H, W).
        form: What comes out.

    Returns:
        float32 (N, 3, height, width) from -1 to 1.
    """
    values = images.float().div_(127.5).sub_(1)
    if values.shape[2:] != (form.height, form.width):
        values = functional.interpolate(values, (form.height, form.width), mode="bilinear", antialias=True)
    return values.expand(-1, 3, -1, -1).contiguous(memory_format=form.layout)


class Batches:
    """The training images in the order and with the variations of each epoch."""

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        places: Tensor,
        *,
        batch_size: int,
        form: Form,
        augmentations: tuple[Augmentation, ...],
        seed: int,
        device: torch.device,
    ) -> None:
        """Use the images at ``places`` (int64) of uint8 (N, C, H, W), given to a model in ``form``."""
        self._images, self._labels, self._places = images, labels, places
        self._form, self._augmentations, self._seed, self._device = form, augmentations, seed, device
        self.batch_size = min(batch_size, len(places))
        by_images = _CHUNK_IMAGES // self.batch_size
        by_values = _CHUNK_VALUES // (self.batch_size * form.values)
        self._chunk_steps = max(1, min(by_images, by_values))
        whole, rest = divmod(len(places), self.batch_size)
        # One image left over would be a batch of its own, which BatchNorm cannot normalise.
        self.steps = whole + (1 if rest > 1 or (rest == 1 and batch_size == 1) else 0)

    def epoch(self, epoch: int, first_step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images, labels) of the steps from ``first_step`` to the end of an epoch, both counted from 0."""
        order = self._places[
            torch.randperm(len(self._places), generator=seeded(torch.device("cpu"), self._seed, epoch))
        ]
        for chunk in range(first_step // self._chunk_steps, -(-self.steps // self._chunk_steps)):
            start = chunk * self._chunk_steps
            images, labels = self._chunk(order, epoch, chunk)
            for step in range(max(start, first_step), min(start + self._chunk_steps, self.steps)):
                part = slice((step - start) * self.batch_size, (step - start + 1) * self.batch_size)
                yield images[part], labels[part]

    def _chunk(self, order: Tensor, epoch: int, chunk: int) -> tuple[Tensor, Tensor]:
        chunk_images = self._chunk_steps * self.batch_size
        places = order[chunk * chunk_images : (chunk + 1) * chunk_images]
        images = self._moved(self._images[places])
        values = normalise(images, self._form)
        if self._augmentations:
            generator = seeded(self._device, self._seed, epoch, chunk, "augment")
            varied = augment.augment(values, self._augmentations, generator)
            values = varied.contiguous(memory_format=self._form.layout)
        return values, self._moved(self._labels[places])

    def _moved(self, tensor: Tensor) -> Tensor:
        if self._device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self._device, non_blocking=True)
