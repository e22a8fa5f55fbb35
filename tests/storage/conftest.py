"""Fixtures of the storage tests."""

from collections.abc import Iterator

import pytest

from stoker.jobs.database import connect
from tests.support.queue import Queue


@pytest.fixture
def queue(database_url: str) -> Iterator[Queue]:
    """An empty queue in a database of its own, with one team and one user."""
    engine = connect(database_url)
    yield Queue(engine)
    engine.dispose()
