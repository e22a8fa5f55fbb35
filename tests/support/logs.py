"""What this process logs, as it would go to stderr."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stoker.log import JsonLines


class Logged(io.StringIO):
    """The text of the log."""

    def lines(self) -> list[dict[str, Any]]:
        """Its lines, as far as it goes."""
        return [json.loads(line) for line in self.getvalue().splitlines()]


@contextmanager
def logged() -> Iterator[Logged]:
    """Keep what is logged in the block."""
    stream, root = Logged(), logging.getLogger()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    root.addHandler(handler)
    try:
        yield stream
    finally:
        root.removeHandler(handler)
