"""A job's secrets, taken out of what it says and prints before anybody keeps or shows it."""

from collections.abc import Iterable
from typing import Any

MASK = "[secret]"
SHORTEST = 4  # characters; to take out shorter ones would take out words
SHORTEST_LINE = 8  # of a secret of several lines, each of which is taken out on its own


class Mask:
    """Takes values out of texts, and out of a stream of bytes that may be cut anywhere."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        """Take these values out; those of fewer than four characters are left."""
        parts = {value for value in values if len(value) >= SHORTEST}
        parts |= {line for value in parts for line in value.splitlines() if len(line) >= SHORTEST_LINE}
        self._texts = sorted(parts, key=len, reverse=True)  # a longer one first: a shorter one may be part of it
        self._parts = [text.encode() for text in self._texts]
        self.reach = max(map(len, self._parts), default=1) - 1  # bytes: so much of a value may lie before a gap
        self._held = b""

    def text(self, text: str) -> str:
        """A whole text without the values."""
        for part in self._texts:
            text = text.replace(part, MASK)
        return text

    def document(self, value: Any) -> Any:
        """JSON without the values: in its texts and its keys, at any depth."""
        if not self._texts:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(key): self.document(item) for key, item in value.items()}
        return [self.document(item) for item in value] if isinstance(value, list) else value

    def feed(self, data: bytes) -> bytes:
        """What can be shown of a stream so far; its last bytes are held back while a value may begin with them."""
        data = self._held + data
        for part in self._parts:
            data = data.replace(part, MASK.encode())
        held = max((_beginning(data, part) for part in self._parts), default=0)
        self._held = data[len(data) - held :]
        return data[: len(data) - held]

    def rest(self) -> bytes:
        """What is held back, once nothing more comes or a part of the stream was passed over."""
        held, self._held = self._held, b""
        return held


def _beginning(data: bytes, part: bytes) -> int:
    """The most bytes at the end of ``data`` that are the beginning of ``part``."""
    return next((size for size in range(min(len(part) - 1, len(data)), 0, -1) if data.endswith(part[:size])), 0)
