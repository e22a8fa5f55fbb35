"""Kinds of values that a spec is made of: names, choices, paths, amounts."""

import difflib
import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from stoker.errors import InvalidInput
from stoker.jobs.quantities import parse_bytes, parse_seconds
from stoker.quoting import quoted, unprintable_character

DATASET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
MAX_PATH = 1000  # characters
MAX_PART_BYTES = 255  # what file systems take


def printable(field: str, limit: int) -> AfterValidator:
    """A text of 1 to ``limit`` characters that can all be seen."""

    def check(text: str) -> str:
        if not text.strip() or len(text) > limit:
            raise InvalidInput(field, f"has {len(text)} characters", f"use 1 to {limit}, not only blanks")
        if bad := unprintable_character(text):
            raise InvalidInput(field, f"holds the unprintable character {bad}", "remove it")
        return text

    return AfterValidator(check)


def choice(field: str, known: tuple[str, ...]) -> AfterValidator:
    """One of the ``known`` words."""

    def check(value: str) -> str:
        if value not in known:
            near = difflib.get_close_matches(value[:100], known, n=3)
            raise InvalidInput(
                field,
                f"{quoted(value)} is not known",
                f"nearest: {', '.join(near)}" if near else f"known: {', '.join(known[:12])}",
            )
        return value

    return AfterValidator(check)


def dataset_name(value: str) -> str:
    """Check the name of a data set: lower-case letters, digits, dot, dash, underscore.

    Raises InvalidInput.
    """
    if not DATASET_NAME.fullmatch(value):
        raise InvalidInput(
            "dataset", f"{quoted(value)} is not a name", "use a-z 0-9 . _ -, at most 100, a letter or digit first"
        )
    return value


def inner_path(value: str) -> str:
    """Check the path of a file inside a job's code or output: relative, plain, printable.

    Raises InvalidInput with the field `path`.
    """
    if bad := unprintable_character(value):
        raise InvalidInput("path", f"{quoted(value)} holds the unprintable character {bad}", "rename the file")
    if len(value) > MAX_PATH:
        raise InvalidInput("path", f"{quoted(value)} has {len(value)} characters", f"use at most {MAX_PATH}")
    parts = value.split("/")
    if value.startswith("/") or ".." in parts:
        raise InvalidInput("path", f"{quoted(value)} leads out of the folder", "give a path relative to the folder")
    if not value or "" in parts or "." in parts:
        raise InvalidInput("path", f"{quoted(value)} is not a plain path", "write it like folder/file.py")
    if any(len(part.encode()) > MAX_PART_BYTES for part in parts):
        raise InvalidInput("path", f"a part of {quoted(value)} is longer than {MAX_PART_BYTES} bytes", "shorten it")
    return value


def refuse_repeated(field: str, values: Sequence[str]) -> None:
    """Raise InvalidInput when a value occurs more than once."""
    if len(set(values)) != len(values):
        raise InvalidInput(field, "one is given twice", "give it once")


Name = Annotated[str, printable("name", 100)]
Tag = Annotated[str, printable("tags", 100)]
Bytes = Annotated[int, BeforeValidator(lambda value: parse_bytes("memory", value))]
Seconds = Annotated[float, BeforeValidator(lambda value: parse_seconds("duration", value))]
DatasetName = Annotated[str, AfterValidator(dataset_name)]
InnerPath = Annotated[str, AfterValidator(inner_path)]
