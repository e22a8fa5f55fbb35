"""The planner in simulated time: what starts when, who is before whom, and what cannot be told."""

import math

import pytest

from stoker.jobs.fit import Demand, Node, Spot, Unit
from stoker.jobs.forecast import Duration
from stoker.jobs.outlook import Drained, Draining, look_ahead
from stoker.jobs.placement import LeastLoss
from stoker.jobs.shares import Shares, TeamShare
from stoker.jobs.situation import Candidate, Running, Situation
from stoker.jobs.timeline import Timeline

GB = 10**9
ONE = Demand(1000, GB, device="gpu", gpus=1)
TWO = Demand(2000, GB, device="gpu", gpus=2)
SHARES = Shares({1: TeamShare("vision"), 2: TeamShare("nlp")})
NOW = 1_000_000.0


def node(free: int = 2) -> Node:
    """A worker of two GPUs, so many of them free."""
    units = tuple(Unit(place, "H100", 80 * GB, 1000 if place < free else 0, 1000) for place in range(2))
    return Node(1, "gpu-1", "cpu", 16_000, 8_000, 64 * GB, 32 * GB, 16, 14, units)


def sure(seconds: float) -> Duration:
    """A duration of which everybody is sure."""
    return Duration.of([(seconds, 1.0)])


def busy() -> Situation:
    """Both GPUs are taken by jobs 1 and 2; 3 and 4 wait for one GPU each, 5 for both."""
    running = [
        Running(number, 1, ONE, Spot(1, "gpu", (number - 1,)), team=2, user=20, placed_at=NOW, kept_at=NOW)
        for number in (1, 2)
    ]
    queue = [
        Candidate(number, 1, demand, team=1, user=10, queued_at=NOW)
        for number, demand in ((3, ONE), (4, ONE), (5, TWO))
    ]
    return Situation(NOW, queue, [node(free=0)], running, shares=SHARES)


def draining(left: Duration, lasts: Duration) -> Draining:
    """The queue of ``busy``, whose jobs take so long."""
    return Draining(
        busy(), LeastLoss(), dict.fromkeys((3, 4, 5), lasts), dict.fromkeys((1, 2), left), budget_seconds=math.inf
    )


def test_jobs_start_when_those_before_them_have_ended() -> None:
    found = look_ahead(draining(sure(100), sure(50)), [3, 4, 5])
    assert [found[number].start_seconds for number in (3, 4)] == [pytest.approx(100)] * 2
    assert found[5].start_seconds == pytest.approx(150, rel=0.03)
    assert found[5].end_seconds == pytest.approx(200, rel=0.03)
    assert [found[number].position for number in (3, 4, 5)] == [1, 2, 3]
    assert [job.number for job in found[5].ahead] == [3, 4]
    assert found[5].spot == Spot(1, "gpu", (0, 1))


def test_a_range_is_as_wide_as_what_is_not_known() -> None:
    unsure = Duration.of([(50, 1.0), (100, 1.0), (400, 1.0)])
    wide, narrow = (look_ahead(draining(left, sure(50)), [3])[3] for left in (unsure, sure(100)))
    assert wide.start_high_seconds is not None
    assert wide.start_low_seconds < wide.start_high_seconds
    assert narrow.start_low_seconds == pytest.approx(100)
    assert narrow.start_high_seconds == pytest.approx(100)


def test_the_same_question_gets_the_same_answer() -> None:
    unsure = Duration.of([(50, 1.0), (100, 1.0), (400, 1.0)])
    assert look_ahead(draining(unsure, unsure), [3, 5]) == look_ahead(draining(unsure, unsure), [3, 5])


def test_what_cannot_be_told_is_not_told() -> None:
    alone = Draining(Situation(NOW, busy().queue, [], shares=SHARES), LeastLoss(), {}, {}, budget_seconds=math.inf)
    found = look_ahead(alone, [3])[3]
    assert (found.start_seconds, found.end_seconds, found.spot) == (None, None, None)
    late = look_ahead(
        Draining(busy(), LeastLoss(), {}, {1: sure(9)}, clock=iter(range(99)).__next__, budget_seconds=1.0), [5]
    )[5]
    assert late.start_seconds is None  # there was no time left to think


@pytest.mark.parametrize(
    ("cut", "unread", "others", "further"),
    [(False, True, (4,), False), (True, False, (), False), (True, False, (4,), True), (True, True, (), True)],
)
def test_others_may_start_before_a_job_only_where_a_run_was_ended_before_they_did(
    cut: bool, unread: bool, others: tuple[int, ...], further: bool
) -> None:
    run = Drained([], {}, {}, 1, cut, unread, frozenset({5, *others}))
    assert run.further(5) is further


def test_a_job_that_is_stopped_goes_on_where_it_was() -> None:
    line = Timeline(Situation(NOW, [], [node()], shares=SHARES), LeastLoss(), lambda _job, _device: 100.0)
    job = Candidate(7, 1, ONE, team=1, user=10)
    line.at(NOW, lambda: line.submit(job))
    line.at(NOW + 60, lambda: line.stop(7, lost_seconds=10))
    while line.step():
        pass
    assert line.ends == {7: pytest.approx(NOW + 110)}
    assert [stay.to_seconds - stay.from_seconds for stay in line.stays] == [pytest.approx(60), pytest.approx(50)]
    assert line.nodes[1].units[0].free_milli == 1000
