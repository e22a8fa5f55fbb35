"""Variations of training images, a whole chunk at a time."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from stoker.training.config import Augmentation


def augment(images: Tensor, steps: Sequence[Augmentation], generator: torch.Generator) -> Tensor:
    """Apply each augmentation in turn; (N, C, H, W) floating point in and out."""
    for step in steps:
        if step.name == "flip":
            images = flip(images, generator)
        elif step.name == "translate":
            images = translate(images, step.pixels, generator)
        else:
            images = cutout(images, step.pixels, generator)
    return images


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability one half.

    Args:
        images: (N, C, H, W), any type.
        generator: Source of randomness; on the same device as ``images``.

    Returns:
        A new tensor of the same shape, type and device.
    """
    chosen = torch.rand(len(images), generator=generator, device=images.device) < 0.5
    return torch.where(chosen.view(-1, 1, 1, 1), images.flip(3), images)


def translate(images: Tensor, shift: int, generator: torch.Generator) -> Tensor:
    """Move each image by up to ``shift`` pixels, mirroring what lies beyond its edges.

    Args:
        images: (N, C, H, W), floating point, any range.
        shift: Largest move in pixels along each axis, 0 <= shift < min(H, W).
        generator: Source of randomness; on the same device as ``images``.

    Returns:
        A new (N, C, H, W) tensor of the same dtype and device. Each image's two moves
        are drawn uniformly and independently from -shift, ..., shift.

    Raises:
        ValueError: ``shift`` is outside its range.

    Source:
        The random crop of He et al. 2015 (arXiv:1512.03385); mirrored edges as in cifar10-airbench.
    """
    count, channels, height, width = images.shape
    if not 0 <= shift < min(height, width):
        raise ValueError(f"a translation of {shift} pixels does not fit images of {height}×{width}")
    moves = torch.randint(0, 2 * shift + 1, (2, count, 1), generator=generator, device=images.device)
    padded = functional.pad(images, (shift,) * 4, mode="reflect")
    rows = moves[0] + torch.arange(height, device=images.device)  # (N, H)
    columns = moves[1] + torch.arange(width, device=images.device)  # (N, W)
    tall = padded.gather(2, rows.view(count, 1, height, 1).expand(-1, channels, -1, padded.shape[3]))
    return tall.gather(3, columns.view(count, 1, 1, width).expand(-1, channels, height, -1))


def cutout(images: Tensor, edge: int, generator: torch.Generator) -> Tensor:
    """Set a square of each image to zero, its centre anywhere in the image.

    Args:
        images: (N, C, H, W), floating point; 0 is mid-grey after normalisation.
        edge: Edge of the square in pixels, > 0; what reaches over the border is lost.
        generator: Source of randomness; on the same device as ``images``.

    Returns:
        A new tensor of the same shape, type and device.

    Source:
        DeVries and Taylor 2017 (arXiv:1708.04552).
    """
    count, _, height, width = images.shape
    rows = _covered(count, height, edge, generator, images.device)
    columns = _covered(count, width, edge, generator, images.device)
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


def _covered(count: int, size: int, edge: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Return (N, size) booleans: which rows or columns a square covers."""
    start = torch.randint(0, size, (count, 1), generator=generator, device=device) - edge // 2
    places = torch.arange(size, device=device)
    return (places >= start) & (places < start + edge)
