"""Class folders of small drawn pictures, as torchvision's ImageFolder reads them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def write_pictures(folder: Path, counts: Mapping[str, int], classes: tuple[str, ...] = CLASSES) -> None:
    """Write so many 32×32 pictures of each class for each part: noise over a colour of the class's own."""
    dice = np.random.default_rng(0)
    for part, count in counts.items():
        for label, name in enumerate(classes):
            (folder / part / name).mkdir(parents=True)
            colour = np.array([label * 25, 250 - label * 25, label % 2 * 200])
            for number in range(count):
                pixels = (colour + dice.integers(-60, 60, (32, 32, 3))).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{number:03}.png", compress_level=1)
