"""Image files of all sorts become pixels, or say why not."""

import io

import numpy as np
import pytest
from PIL import Image

from stoker.training import images
from stoker.training.images import BadImage
from tests.training.pictures import picture


def test_images_are_converted_in_a_defined_way() -> None:
    sixteen = io.BytesIO()
    Image.fromarray(np.full((4, 4), 0x8123, np.uint16)).save(sixteen, "PNG")
    assert images.decode(sixteen.getvalue())[0, 0].tolist() == [0x81] * 3
    assert images.decode(picture(9, kind="PNG", mode="L"))[0, 0].tolist() == [9] * 3
    assert images.decode(picture(9, kind="PNG", mode="RGBA"))[0, 0].tolist() == [9] * 3
    assert images.decode(picture(0, kind="JPEG", mode="CMYK")).shape == (8, 8, 3)
    frames = io.BytesIO()
    Image.new("RGB", (4, 4), (255, 0, 0)).save(
        frames, "GIF", save_all=True, append_images=[Image.new("RGB", (4, 4), (0, 0, 255))]
    )
    assert images.decode(frames.getvalue())[0, 0].tolist() == [255, 0, 0]  # the first frame
    assert images.decode(picture(1, (1000, 300), "JPEG")).shape == (224, 224, 3)


def test_a_photograph_is_turned_as_its_exif_says() -> None:
    upright = Image.new("RGB", (8, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    buffer = io.BytesIO()
    upright.save(buffer, "JPEG", exif=exif)
    assert images.decode(buffer.getvalue()).shape == (8, 4, 3)


BAD_IMAGES = {
    "empty": b"",
    "text": b"hello",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "tiff": picture(1, kind="TIFF"),
    "cut": picture(1, (200, 200), "JPEG")[:-100],
    "bomb": picture(0, (8000, 8000), "PNG", "L"),
}


@pytest.mark.parametrize("name", list(BAD_IMAGES))
def test_what_is_no_image_says_why(name: str) -> None:
    with pytest.raises(BadImage) as caught:
        images.decode(BAD_IMAGES[name])
    assert str(caught.value)
