"""Points of curves: kept in order, thinned when they come too fast, and never a reason to fail."""

import itertools
import math
from typing import Any

import pytest

from stoker.training.curves import MOST_CURVES, MOST_POINTS, Curves
from stoker.workers.protocol import Inbox
from tests.unit.test_protocol import line


def fed(*points: tuple[str, int, Any]) -> Curves:
    """Curves with these points."""
    curves = Curves()
    for key, step, value in points:
        curves.add(key, step, value)
    return curves


def test_points_come_out_once_and_in_order() -> None:
    curves = fed(("loss", 1, 0.5), ("loss", 2, 0.25), ("accuracy", 2, 1))
    assert curves.take() == [("loss", [1, 2], [0.5, 0.25]), ("accuracy", [2], [1.0])]
    assert curves.take() == []
    assert curves.latest == {"loss": 0.25, "accuracy": 1.0}


def test_of_two_points_of_one_step_the_later_one_counts_and_none_goes_back() -> None:
    curves = fed(("loss", 1, 1.0), ("loss", 1, 2.0), ("loss", 0, 3.0))
    assert curves.take() == [("loss", [1], [2.0])]
    curves.add("loss", 1, 4.0)
    assert curves.take() == []
    assert curves.take_notes() == ["points of loss are left out: step 0 came after step 1"]


def test_a_flood_is_thinned_evenly_with_its_last_points_and_one_note() -> None:
    curves = Curves()
    for step in range(1, 100_001):
        curves.add("loss", step, 0.5)
    ((name, steps, values),) = curves.take()
    assert name == "loss"
    assert MOST_POINTS // 2 <= len(steps) == len(values) <= MOST_POINTS + 1
    *even, last = steps
    assert {after - before for before, after in itertools.pairwise(even)} == {even[0]}
    assert last == 100_000
    assert len(curves.take_notes()) == 1


def test_what_comes_slowly_again_is_kept_whole_again() -> None:
    curves = Curves()
    for step in range(10_000):
        curves.add("loss", step, 0.5)
    curves.take()
    curves.add("loss", 10_000, 0.5)
    assert curves.take() == [("loss", [10_000], [0.5])]
    curves.add("loss", 10_001, 0.25)
    curves.add("loss", 10_002, 0.125)
    assert curves.take() == [("loss", [10_001, 10_002], [0.25, 0.125])]


@pytest.mark.parametrize("value", ["0.5", None, [1, 2], {"a": 1}, object(), b"1"])
def test_what_is_no_number_is_left_out_with_a_note(value: object) -> None:
    curves = fed(("loss", 1, value), ("loss", 2, value))
    assert curves.take() == []
    assert curves.take_notes() == ["the metric loss is left out: it is no number"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400])
def test_a_loss_that_is_no_finite_number_is_remembered(value: float) -> None:
    curves = fed(("accuracy", 1, value))
    assert not curves.nan
    curves.add("val/Loss", 2, value)
    assert curves.take() == []
    assert str(curves.nan).startswith("val/Loss is")


def test_the_supervisor_takes_every_name_that_comes_out() -> None:
    curves = Curves()
    for key in ("train loss", "", "/x", "ü", "a" * 300, "ok", "a\0b", *(f"key {number}" for number in range(300))):
        curves.add(key, 1, 1.0)
    taken = curves.take()
    assert len(taken) == MOST_CURVES
    inbox = Inbox()
    for name, steps, values in taken:
        inbox.take(line({"type": "metrics", "key": name, "steps": steps, "values": values}))
    assert inbox.refused == []
    assert "others" in curves.take_notes()[0]
