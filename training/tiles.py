"""The test images as small tiles in one file, so that predictions can be shown without the data set."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from stoker.training import tensorfile

MAX_EDGE = 64  # pixels
_BATCH_IMAGES = 500


@dataclass(frozen=True, slots=True)
class Tiles:
    """A file of uint8 (count, height, width, channels)."""

    count: int
    height: int
    width: int
    channels: int
    digest: str  # SHA-256 of the file


def write_tiles(images: Tensor, path: Path) -> Tiles:
    """Write uint8 images (N, C, H, W), made smaller where an edge is longer than 64 pixels."""
    count, channels, height, width = images.shape
    shrink = min(1.0, MAX_EDGE / max(height, width))
    size = (max(1, round(height * shrink)), max(1, round(width * shrink)))
    _, digest = tensorfile.write(path, b"", _tiles(images, size))
    return Tiles(count, *size, channels, digest)


def _tiles(images: Tensor, size: tuple[int, int]) -> Iterator[memoryview]:
    for batch in torch.split(images, _BATCH_IMAGES):
        small = batch
        if batch.shape[2:] != size:
            values = functional.interpolate(batch.float(), size, mode="bilinear", antialias=True)
            small = values.round().clamp(0, 255).to(batch.dtype)
        yield small.permute(0, 2, 3, 1).contiguous().numpy().data
