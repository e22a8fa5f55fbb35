"""What a trainer hands in at its end, read with limits and counted again: a result is believed only if it agrees."""

import hashlib
import io
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stoker.errors import InvalidInput, StokerError
from stoker.jobs import documents, predictions
from stoker.quoting import quoted
from stoker.workers import handover

RESULT_LIMIT_BYTES = 32 * 10**6
PREDICTIONS_LIMIT = 10_000_000  # images
IMAGES_LIMIT_BYTES = 2 * 10**9
MAX_TILE = 64  # pixels
ROW_BYTES = 8
PIECE_BYTES = 2**20


class FindingsRefused(StokerError):
    """What a trainer handed in contradicts itself, or is not there."""

    code = "findings_refused"


@dataclass(frozen=True, slots=True)
class Findings:
    """A checked result, with the predictions that it was counted from."""

    document: dict[str, Any]
    packed: bytes  # of every test image: label, predicted, probability
    count: int
    classes: tuple[str, ...]


def open_handed_in(scratch: Path, name: str) -> io.BufferedReader:
    """Open a file that a trainer named: a plain file inside its own folder, through no link.

    Raises FindingsRefused.
    """
    try:
        return os.fdopen(handover.open_file(scratch, name), "rb")
    except OSError as error:
        raise FindingsRefused(f"{quoted(name, 200)} cannot be read: {error.strerror}") from None


def read_limited(scratch: Path, name: str, limit_bytes: int) -> bytes:
    """Read a file that a trainer named, of at most so many bytes.

    Raises FindingsRefused.
    """
    with open_handed_in(scratch, name) as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise FindingsRefused(f"{name} has more than {limit_bytes:,} bytes")
    return data


def pieces(file: io.BufferedReader) -> Iterator[bytes]:
    """The content of an open file, a mebibyte at a time."""
    while piece := file.read(PIECE_BYTES):
        yield piece


def digest_of(file: io.BufferedReader) -> str:
    """The SHA-256 of an open file, in hexadecimal; the file is at its start again."""
    found = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    return found


def read(scratch: Path, result: dict[str, Any], made: dict[str, Any]) -> Findings:
    """Read and check the result and the predictions that a trainer announced.

    Raises FindingsRefused.
    """
    document = read_document(scratch, result["path"], RESULT_LIMIT_BYTES)
    packed, classes = read_rows(scratch, made, document)
    _count_again(document, packed, made["count"])
    return Findings(document, packed, made["count"], classes)


def read_document(scratch: Path, name: str, limit_bytes: int) -> dict[str, Any]:
    """Read a result: a JSON document of bounded size, whose numbers are finite.

    Raises FindingsRefused.
    """
    try:
        document = documents.parse_json(read_limited(scratch, name, limit_bytes))
    except InvalidInput as error:
        raise FindingsRefused(f"the result is not JSON that can be stored: {error}") from None
    if not isinstance(document, dict):
        raise FindingsRefused("the result is no document")
    return document


def read_rows(scratch: Path, made: dict[str, Any], document: dict[str, Any]) -> tuple[bytes, tuple[str, ...]]:
    """Read the predictions that were announced, each of which names one of the result's classes, and these.

    Raises FindingsRefused.
    """
    if not 0 < made["count"] <= PREDICTIONS_LIMIT:
        raise FindingsRefused(f"{made['count']:,} predictions were announced")
    packed = read_limited(scratch, made["path"], made["count"] * ROW_BYTES)
    if len(packed) != made["count"] * ROW_BYTES:
        raise FindingsRefused(
            f"{made['count']:,} predictions were announced, {len(packed) / ROW_BYTES:,g} were written"
        )
    classes = document.get("classes")
    if not isinstance(classes, list) or not classes or not all(_is_name(name) for name in classes):
        raise FindingsRefused("the result names no classes")
    for label, predicted, probability in predictions.unpack(packed):
        if label >= len(classes) or predicted >= len(classes) or not 0 <= probability <= 1.001:  # false for NaN too
            raise FindingsRefused("a prediction names no class, or has no probability")
    return packed, tuple(classes)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and len(value) <= 500


def _count_again(document: dict[str, Any], packed: bytes, count: int) -> None:
    right = sum(label == predicted for label, predicted, _ in predictions.unpack(packed))
    accuracy = document.get("accuracy")
    if not isinstance(accuracy, int | float) or not math.isclose(float(accuracy), right / count, abs_tol=1e-9):
        raise FindingsRefused(
            f"the result says accuracy {quoted(accuracy, 40)}; the predictions count {right / count:.6f}"
        )
    if document.get("test_images") != count:
        raise FindingsRefused(
            f"the result counts {quoted(document.get('test_images'), 40)} images; {count} were predicted"
        )


def check_images(message: dict[str, Any], size: int) -> None:
    """Check what was announced of the test images against the size of the file.

    Raises FindingsRefused.
    """
    height, width, channels = (message[name] for name in ("height", "width", "channels"))
    if not (0 < height <= MAX_TILE and 0 < width <= MAX_TILE and channels in (1, 3)):
        raise FindingsRefused(f"tiles of {height}×{width}×{channels} cannot be shown")
    if size != message["count"] * height * width * channels or size > IMAGES_LIMIT_BYTES:
        raise FindingsRefused(f"the images have {size:,} bytes, which is not what was announced")
