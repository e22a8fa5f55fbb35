"""How long jobs take: what is learned from those like them, and what their own pace says."""

import random
import statistics
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.jobs.forecast import FARTHEST_SECONDS, Duration, Durations, Like, Pace, later, like, pace

SPEC = {
    "kind": "train",
    "train": {"dataset": "digits", "model": "fast", "epochs": 4, "batch_size": 32, "precision": "auto", "seed": 1},
    "resources": {"device": "gpu", "gpus": 1, "cpus": 1},
    "time_limit": None,
}
positive = st.floats(1e-3, 1e7)


def of(owner: int = 1, team: int = 1, **changed: object) -> Like:
    """The likeness of a training, with these fields of its section replaced."""
    return like(SPEC | {"train": {**SPEC["train"], **changed}}, owner_id=owner, team_id=team)  # type: ignore[dict-item]


def test_a_job_takes_as_long_as_those_of_the_same_recipe_for_each_epoch() -> None:
    known = Durations([(of(epochs=2), 100.0)] * 5 + [(of(model="resnet18", epochs=2), 9000.0)] * 9)
    assert known.expected(of(epochs=4)).p50_seconds == pytest.approx(200)
    assert known.expected(of(epochs=4, seed=7)).p50_seconds == pytest.approx(200)
    assert known.expected(of(model="resnet18", epochs=1)).p50_seconds == pytest.approx(4500)


def test_ones_own_jobs_count_before_those_of_others() -> None:
    known = Durations([(of(owner=1), 40.0)] * 6 + [(of(owner=2), 400.0)] * 60)
    assert known.expected(of(owner=1)).p50_seconds == pytest.approx(40)
    assert known.expected(of(owner=2)).p50_seconds == pytest.approx(400)
    assert known.expected(of(owner=3)).p50_seconds == pytest.approx(400)  # a stranger: those of the team


def test_where_little_is_known_the_range_is_wide() -> None:
    nothing, one, many = (Durations([(of(), 100.0)] * count).expected(of()) for count in (0, 1, 30))
    widths = [found.quantile(0.9) / found.quantile(0.1) for found in (nothing, one, many)]
    assert widths[0] > widths[1] > widths[2]
    assert many.p50_seconds == pytest.approx(100)


def test_the_first_job_of_a_kind_teaches_while_it_runs_and_is_not_needed_once_enough_have_ended() -> None:
    known, halfway, hardly = Durations(), Pace(60.0, done=0.5, left=0.5), Pace(1.0, done=0.01, left=0.99)
    assert known.with_running([(of(epochs=4), halfway)]).expected(of(epochs=8)).p50_seconds == pytest.approx(
        240, rel=0.05
    )
    assert known.with_running([(of(), hardly)]).expected(of()) == known.expected(of())
    assert known.expected(of()).p50_seconds > 1000, "it was taught for good"
    taught = Durations([(of(), 100.0)] * 2)
    slow = Pace(6000.0, done=0.5, left=0.5)
    assert taught.with_running([(of(), slow)] * 9).expected(of()) == taught.expected(of())
    assert taught.with_running([(of(model="net"), slow)]).expected(of(model="net")).p50_seconds > 6000


def test_a_walltime_caps_and_says_nothing_else() -> None:
    known = Durations([(of(), 100.0)] * 5)
    short, long = (like(SPEC | {"time_limit": limit}, owner_id=1, team_id=1) for limit in (50.0, 90_000.0))
    assert known.expected(short).p90_seconds == pytest.approx(50, rel=0.2)
    assert known.expected(long).p50_seconds == pytest.approx(100)
    assert known.left(short, 45.0).p50_seconds == pytest.approx(5, rel=0.2)


def test_nothing_is_told_beyond_the_end_of_dates() -> None:
    endless = Duration((1e300,), (1.0,), unsure=1.0)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert later(now, endless.p90_seconds) == later(now, FARTHEST_SECONDS) > now
    assert later(now, 1e300) == later(now, FARTHEST_SECONDS)


def test_what_has_run_long_already_is_not_one_of_the_short_ones() -> None:
    known = Durations([(of(), 10.0)] * 10 + [(of(), 1000.0)] * 10)
    assert known.left(of(), 20.0).p50_seconds == pytest.approx(980, rel=0.05)
    assert known.left(of(), 5000.0).p50_seconds > 1000  # it outlived all of them


def test_its_own_pace_says_more_the_further_it_came() -> None:
    known = Durations([(of(), 1000.0)] * 10)
    early, late = (known.left(of(), done * 4000, Pace(done * 4000, done, 1 - done)) for done in (0.002, 0.5))
    assert 1000 < early.p50_seconds < 3992  # it would take 4,000 s at this pace
    assert late.p50_seconds == pytest.approx(2000, rel=0.05)
    assert late.quantile(0.9) / late.quantile(0.1) < early.quantile(0.9) / early.quantile(0.1)


def test_a_pace_needs_a_step_and_counts_only_its_own() -> None:
    assert pace(None, 0, 10) is None
    assert pace({"step": 0, "steps": 10}, 0, 10) is None
    assert pace({"step": 5, "steps": 10}, 5, 10) is None
    assert pace({"step": 5, "steps": None}, 0, 10) is None
    assert pace({"step": 5, "steps": 10}, 0, None) is None
    found = pace({"step": 6, "steps": 10}, 5, 10)
    assert found is not None
    assert found.left_seconds == pytest.approx(40)


@given(st.lists(st.tuples(positive, st.floats(0.01, 10)), min_size=1, max_size=20), st.floats(0, 1), st.floats(0, 1))
def test_percentiles_rise_and_stay_among_what_was_seen(
    values: list[tuple[float, float]], first: float, second: float
) -> None:
    duration = Duration.of(values)
    low, high = sorted((first, second))
    assert duration.quantile(low) <= duration.quantile(high) * (1 + 1e-9)
    seen = [value for value, _ in values]
    assert min(seen) * (1 - 1e-9) <= duration.quantile(first) <= max(seen) * (1 + 1e-9)


@given(st.lists(positive, min_size=1, max_size=20), st.floats(0, 1e7), st.floats(0.001, 1))
def test_what_is_left_is_never_negative(values: list[float], ran: float, done: float) -> None:
    left = Durations((of(), value) for value in values).left(of(), ran, Pace(ran or 1.0, done, 1 - done))
    assert left.quantile(0.01) >= 0


def test_estimates_are_not_biased() -> None:
    chance = random.Random(5)
    known = Durations()
    ratios = []
    for _ in range(400):
        took = 600 * chance.lognormvariate(0, 0.3)
        ratios.append(known.expected(of()).p50_seconds / took)
        known.add(of(), took)
    assert statistics.median(ratios[20:]) == pytest.approx(1, abs=0.1)
