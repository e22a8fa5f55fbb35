"""A stored checkpoint that is damaged is noticed by the worker that fetches it, and the one before is used."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.damage import HARMS, Damage
from tests.support.worker_parts import Parts, parts_of_a_worker


@pytest.fixture
def parts(database_url: str, home: Path) -> Iterator[Parts]:
    with parts_of_a_worker(database_url, home) as made:
        yield made


@pytest.mark.parametrize("harm", list(HARMS))
def test_a_damaged_checkpoint_is_reported_and_the_one_before_used(harm: str, parts: Parts, tmp_path: Path) -> None:
    damage, dice = Damage(parts, tmp_path), random.Random(harm)
    for _ in range(2):
        assert damage.found(HARMS[harm], dice) == []
