"""Estimates corrected by what came of those before."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.jobs.outlook import Outlook
from stoker.jobs.told import ENOUGH, Correction

HOUR = 3600.0
waits = st.floats(1.0, 1e6)


def outlook(start: float | None, low: float = 0.0, high: float | None = None, end: float | None = None) -> Outlook:
    """What a look ahead says of one job."""
    return Outlook((), start, low, high, end, None)


def test_too_few_waits_teach_nothing() -> None:
    few = Correction.of([(HOUR, 9 * HOUR)] * (ENOUGH - 1))
    assert few == Correction()
    told = few.apply(outlook(HOUR, HOUR, HOUR, 2 * HOUR))
    assert (told.start_seconds, told.end_seconds) == (HOUR, 2 * HOUR)
    assert told.start_low_seconds < HOUR < (told.start_high_seconds or 0.0)  # nobody is as sure as one look


def test_the_usual_error_is_taken_out_and_the_end_moves_with_the_start() -> None:
    late = Correction.of([(HOUR, 2 * HOUR)] * ENOUGH)
    told = late.apply(outlook(HOUR, HOUR, HOUR, 3 * HOUR))
    assert told.start_seconds == pytest.approx(2 * HOUR)
    assert told.end_seconds == pytest.approx(4 * HOUR)  # it runs no longer for having waited


def test_errors_to_both_sides_widen_the_range_and_move_nothing() -> None:
    both = Correction.of([(HOUR, HOUR / 3), (HOUR, 2 * HOUR)] * ENOUGH + [(HOUR, 2 * HOUR)])
    assert both.middle == 1.0
    told = both.apply(outlook(HOUR, HOUR, HOUR, 3 * HOUR))
    assert (told.start_seconds, told.end_seconds) == (HOUR, 3 * HOUR)
    assert told.start_low_seconds == pytest.approx(HOUR / 3)
    assert told.start_high_seconds == pytest.approx(2 * HOUR)


def test_what_starts_at_once_or_when_nobody_can_tell_stays_so() -> None:
    learned = Correction.of([(HOUR, 2 * HOUR)] * ENOUGH)
    for unchanged in (outlook(0.0, 0.0, 0.0, HOUR), outlook(None)):
        assert learned.apply(unchanged) == unchanged


def test_a_wait_that_was_estimated_as_nothing_divides_by_nothing() -> None:
    assert Correction.of([(0.0, HOUR)] * 100) == Correction()


@given(st.lists(st.tuples(waits, waits), min_size=ENOUGH, max_size=60), waits, st.floats(0.1, 1.0), st.floats(1.0, 9.0))
def test_a_range_always_holds_its_estimate(
    past: list[tuple[float, float]], start: float, low: float, high: float
) -> None:
    told = Correction.of(past).apply(outlook(start, low * start, high * start, start + HOUR))
    assert told.start_seconds is not None
    assert told.start_high_seconds is not None
    assert told.end_seconds is not None
    assert told.start_low_seconds <= told.start_seconds * (1 + 1e-9)
    assert told.start_seconds <= told.start_high_seconds * (1 + 1e-9)
    assert math.isclose(told.end_seconds - told.start_seconds, HOUR, rel_tol=1e-6, abs_tol=0.01)


@given(st.floats(0.2, 5.0), st.lists(waits, min_size=ENOUGH, max_size=60))
def test_a_constant_error_disappears(factor: float, estimated: list[float]) -> None:
    learned = Correction.of([(raw, raw * factor) for raw in estimated])
    assert learned.apply(outlook(HOUR, HOUR, HOUR)).start_seconds == pytest.approx(HOUR * factor, rel=1e-6)
