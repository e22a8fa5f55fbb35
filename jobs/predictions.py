"""The prediction for every test image of a job: 8 bytes each, one row a job, and the images beside them."""

import difflib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sqlalchemy.orm import Session

from stoker.errors import DataDamaged, InvalidInput, NotFound
from stoker.jobs.blobs import read_range
from stoker.jobs.models import Predictions, Sprite
from stoker.jobs.pages import cursor, position
from stoker.quoting import quoted

_ROW = struct.Struct("<HHf")  # label, predicted, probability of the predicted class

Rows = Iterable[tuple[int, int, float]]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was predicted for one test image; ``index`` is its place in test order."""

    index: int
    label: str
    predicted: str
    probability: float
    correct: bool


@dataclass(frozen=True, slots=True)
class PredictionPage:
    """Some of the predictions of a job that match a question."""

    count: int  # of all test images
    matching: int
    accuracy: float | None  # counted over all of them
    classes: list[str]
    items: list[Prediction]
    next: str | None


@dataclass(frozen=True, slots=True)
class Tile:
    """One test image: height * width * channels bytes, row by row."""

    height: int
    width: int
    channels: int
    pixels: bytes


def pack(rows: Rows) -> bytes:
    """Pack (label, predicted, probability) of each test image in test order."""
    return b"".join(_ROW.pack(*row) for row in rows)


def unpack(packed: bytes) -> Iterator[tuple[int, int, float]]:
    """Yield what ``pack`` was given, with the probability as float32."""
    return _ROW.iter_unpack(packed)


def query(
    session: Session,
    number: int,
    *,
    wrong: bool | None = None,
    label: str | None = None,
    predicted: str | None = None,
    after: str | None = None,
    limit: int = 100,
) -> PredictionPage:
    """The predictions of a job in test order; given: only wrong (or right) ones, of a label, as a class.

    Raises NotFound: the job has no predictions; InvalidInput: an unknown class, or a cursor of another list.
    """
    stored = _stored(session, number)
    classes = stored.classes
    wanted_label, wanted_class = _class(classes, "label", label), _class(classes, "predicted", predicted)
    matching, correct = [], 0
    for index, (actual, guess, probability) in enumerate(unpack(stored.packed)):
        correct += actual == guess
        if (
            wanted_label in (None, actual)
            and wanted_class in (None, guess)
            and (wrong is None or wrong == (actual != guess))
        ):
            matching.append((index, actual, guess, probability))
    first = position("prediction", after)
    shown = [row for row in matching if first is None or row[0] > first][: limit + 1]
    return PredictionPage(
        count=stored.count,
        matching=len(matching),
        accuracy=correct / stored.count if stored.count else None,
        classes=classes,
        items=[_shown(classes, *row) for row in shown[:limit]],
        next=cursor("prediction", shown[limit - 1][0]) if len(shown) > limit else None,
    )


def tile(session: Session, number: int, index: int) -> Tile:
    """The test image that a prediction is about.

    Raises NotFound: no such image, or none were kept; DataDamaged.
    """
    stored = _stored(session, number)
    sprite = session.get(Sprite, stored.sprite_id) if stored.sprite_id is not None else None
    if sprite is None or not 0 <= index < min(stored.count, sprite.count):
        raise NotFound(f"image {index} of job", number, "" if sprite else "its images were not kept")
    size = sprite.height * sprite.width * sprite.channels
    pixels = read_range(session, sprite.blob_id, index * size, size)
    if len(pixels) != size:
        raise DataDamaged(f"image {index} of job {number}")
    return Tile(sprite.height, sprite.width, sprite.channels, pixels)


def _stored(session: Session, number: int) -> Predictions:
    stored = session.get(Predictions, number)
    if stored is None:
        raise NotFound("predictions of job", number, "they are there once it has succeeded")
    return stored


def _class(classes: list[str], field: str, name: str | None) -> int | None:
    if name is None:
        return None
    if name not in classes:
        near = difflib.get_close_matches(name[:100], classes, n=3) or classes[:12]
        raise InvalidInput(field, f"{quoted(name)} is not a class of this job", f"nearest: {', '.join(near)}")
    return classes.index(name)


def _shown(classes: list[str], index: int, label: int, predicted: int, probability: float) -> Prediction:
    return Prediction(index, classes[label], classes[predicted], probability, label == predicted)
