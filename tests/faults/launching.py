"""Putting something before or around a function of the product, in the test's own process."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.points import Points

Before = Callable[..., None]


def put_before(owner: object, name: str, act: Before) -> None:
    """Call ``act`` with the same arguments before each call of ``owner.name``."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        act(*args, **kwargs)
        return original(*args, **kwargs)

    setattr(owner, name, wrapped)


def points_of(folder: str) -> Points:
    """The places that a launcher was told of."""
    return Points(Path(folder))
