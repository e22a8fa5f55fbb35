"""A picture of predictions: test images, what they show, what the network said."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from stoker.client.records import Prediction

COLUMNS, ROWS = 8, 5
EDGE, MARGIN, LINE = 96, 10, 15  # pixels: of an image, around it, of a line of text
RIGHT, WRONG, INK = "#1a7f37", "#cf222e", "#1f2328"


def pick(predictions: Sequence[Prediction]) -> list[Prediction]:
    """As many as fit into the picture, spread evenly over the test images."""
    count = min(len(predictions), COLUMNS * ROWS)
    return [predictions[number * len(predictions) // count] for number in range(count)]


def draw(path: Path, title: str, chosen: Sequence[Prediction], image_of: Callable[[int], bytes]) -> None:
    """Write a PNG.

    Args:
        path: Of the picture.
        title: Its first line.
        chosen: What ``pick`` gave.
        image_of: The encoded image of a prediction's index.
    """
    width, height = EDGE + 2 * MARGIN, EDGE + 2 * MARGIN + 2 * LINE
    rows = -(-len(chosen) // COLUMNS)
    picture = Image.new("RGB", (COLUMNS * width, rows * height + 2 * LINE + MARGIN), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    pen.text((MARGIN, MARGIN), title, INK, ImageFont.load_default(15))
    for number, prediction in enumerate(chosen):
        left, top = number % COLUMNS * width + MARGIN, number // COLUMNS * height + 2 * LINE + MARGIN
        with Image.open(io.BytesIO(image_of(prediction.index))) as image:
            picture.paste(image.convert("RGB").resize((EDGE, EDGE), Image.Resampling.NEAREST), (left, top))
        colour = RIGHT if prediction.correct else WRONG
        pen.rectangle((left - 2, top - 2, left + EDGE + 1, top + EDGE + 1), outline=colour, width=2)
        pen.text((left, top + EDGE + 3), f"is {prediction.label}"[:18], INK, font)
        said = f"said {prediction.predicted}"[:13]
        pen.text((left, top + EDGE + 3 + LINE), f"{said} {prediction.probability:.0%}", colour, font)
    picture.save(path)
