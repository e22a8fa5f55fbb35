"""Waiting for a condition, never for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(condition: Callable[[], T], timeout_seconds: float, what: str, every_seconds: float = 0.01) -> T:
    """Return the first true value of ``condition()``; fails, naming ``what`` was waited for, after the timeout."""
    deadline = time.monotonic() + timeout_seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {timeout_seconds:g} s for {what}"
        time.sleep(every_seconds)
    return value
