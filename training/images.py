"""Bytes of an image file -> pixels."""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")
MAX_PIXELS = 50_000_000
MAX_EDGE = 256  # pixels; a larger image is brought to …
SHRUNK_EDGE = 224  # … so many each way
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class BadImage(Exception):
    """The bytes are no image that can be used."""

    problem: str

    def __str__(self) -> str:
        return self.problem


def decode(content: bytes) -> Pixels:
    """Return the pixels (H, W, 3), at most 256 each way, of a JPEG, PNG, BMP, GIF or WebP (its first frame).

    Rotated as its EXIF says; 16-bit grey loses its lower byte, transparency is dropped. Raises BadImage.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadImage(f"{image.width}×{image.height} are more than {MAX_PIXELS:,} pixels")
            if max(image.size) > MAX_EDGE:
                image.draft("RGB", (MAX_EDGE, MAX_EDGE))  # a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size
            return _pixels(image)
    except BadImage:
        raise
    except Exception as error:  # decoders raise anything at all on hostile bytes
        raise BadImage(f"{type(error).__name__}: {error}"[:200].replace("\n", " ")) from None


def _pixels(image: Image.Image) -> Pixels:
    turned = ImageOps.exif_transpose(image) if image.getexif() else image
    if turned.mode.startswith("I"):
        turned = Image.fromarray((np.asarray(turned) >> 8).clip(0, 255).astype(np.uint8))
    rgb = turned if turned.mode == "RGB" else turned.convert("RGB")
    if max(rgb.size) > MAX_EDGE:
        rgb = rgb.resize((SHRUNK_EDGE, SHRUNK_EDGE), Image.Resampling.BILINEAR)
    return np.asarray(rgb)


def resize(pixels: Pixels, height: int, width: int) -> Pixels:
    """Return an image (H, W, 3) at another size, bilinear with antialiasing."""
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
