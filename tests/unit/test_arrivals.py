"""Jobs that are still to be submitted: which days come again, and what that does to those who wait."""

import math
from dataclasses import replace

import pytest

from stoker.jobs.arrivals import DAY_SECONDS, DAYS, Arrival, past_days
from stoker.jobs.outlook import Draining, look_ahead
from stoker.jobs.placement import LeastLoss
from stoker.jobs.policy import DEFAULT_POLICY
from stoker.jobs.situation import HIGH, NORMAL, Candidate
from tests.unit.test_outlook import NOW, ONE, TWO, busy, sure

HOUR = 3600.0


def job(number: int, hours_ago: float) -> Candidate:
    """A job of the other team that was submitted so long ago."""
    return Candidate(number, NORMAL, ONE, team=2, user=20, queued_at=NOW - hours_ago * HOUR)


def test_a_day_brings_what_it_brought_at_the_same_time_after_its_beginning() -> None:
    jobs = [(job(1, 1.0), sure(10)), (job(2, 23.0), sure(20)), (job(3, 25.0), sure(30)), (job(4, 60.0), sure(40))]
    yesterday, before = past_days(jobs, NOW, NOW - 2.5 * DAY_SECONDS)
    assert [(one.job.number, one.after_seconds, one.lasts) for one in yesterday] == [
        (1, 23 * HOUR, sure(10)),
        (2, HOUR, sure(20)),
    ]
    assert [(one.job.number, one.after_seconds) for one in before] == [(3, 23 * HOUR)]


@pytest.mark.parametrize(("known", "days"), [(0.0, 0), (0.9, 0), (1.0, 1), (6.5, 6), (100.0, DAYS)])
def test_only_days_that_are_known_whole_come_again(known: float, days: int) -> None:
    assert len(past_days([], NOW, NOW - known * DAY_SECONDS)) == days


def look(day: list[Arrival]) -> Draining:
    """Both GPUs are taken for a hundred seconds; what waits takes fifty."""
    lasts, left = dict.fromkeys((3, 4, 5), sure(50)), dict.fromkeys((1, 2), sure(100))
    return Draining(busy(), LeastLoss(), lasts, left, budget_seconds=math.inf, days=[day])


def test_those_who_wait_make_way_for_those_who_will_come_before_them() -> None:
    urgent = replace(job(1, 23.0), priority=HIGH, demand=TWO)
    found = look_ahead(look([Arrival(urgent, 60.0, sure(1000))]), [3, 5])
    assert found[3].start_seconds == pytest.approx(1100, rel=0.05)
    assert [one.number for one in found[5].ahead] == [3, 4], "nobody is told of jobs that do not exist"
    behind = replace(job(1, 23.0), team=1, user=10, demand=TWO)
    assert look_ahead(look([Arrival(behind, 60.0, sure(1000))]), [3])[3].start_seconds == pytest.approx(100, rel=0.05)


def test_days_come_one_after_the_other_and_the_middle_one_is_told() -> None:
    urgent = replace(job(1, 23.0), priority=HIGH, demand=TWO)
    days = [[Arrival(urgent, 60.0, sure(seconds))] for seconds in (5000, 1000, 200)]
    found = look_ahead(replace(look([]), days=days), [3], runs=3)[3]
    assert found.start_seconds == pytest.approx(1100, rel=0.05)
    assert found.start_low_seconds == pytest.approx(300, rel=0.05)
    assert found.start_high_seconds == pytest.approx(5100, rel=0.05)


def test_a_day_comes_again_when_it_has_passed() -> None:
    urgent = replace(job(1, 23.0), priority=HIGH, demand=TWO)
    day = [Arrival(urgent, HOUR * hour, sure(HOUR)) for hour in range(24)]  # nothing is ever free
    found = look_ahead(replace(look(day), left=dict.fromkeys((1, 2), sure(HOUR / 2))), [5])[5]
    assert found.start_seconds == pytest.approx(DEFAULT_POLICY.raise_seconds, rel=0.1)  # then it is raised
