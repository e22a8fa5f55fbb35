"""Lists, a page at a time."""

import re
from dataclasses import dataclass
from typing import Generic, TypeVar

from stoker.errors import InvalidInput

Item = TypeVar("Item")
_CURSOR = re.compile(r"([a-z]+)-([0-9]{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Some items of a list, and the cursor that gives those after them; no cursor at the end."""

    items: list[Item]
    next: str | None = None


def cursor(kind: str, position: int) -> str:
    """A cursor that goes on after ``position`` in lists of this kind."""
    return f"{kind}-{position}"


def position(kind: str, text: str | None) -> int | None:
    """Where a cursor goes on; None without one.

    Raises InvalidInput: it is no cursor, or one of another list.
    """
    if text is None:
        return None
    match = _CURSOR.fullmatch(text)
    if match is None or match[1] != kind:
        raise InvalidInput("cursor", "is not one of this list", "pass on what `next` held, unchanged")
    return int(match[2])
