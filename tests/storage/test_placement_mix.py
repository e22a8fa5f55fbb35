"""The mix of jobs that placement serves, as the database knows it."""

import pytest
from sqlalchemy import text

from stoker.jobs.capacity import MIX_SECONDS, RecentMix, recent_shapes
from stoker.jobs.mix import Shape
from stoker.jobs.window import demand_of
from tests.support.queue import Queue

ONE, TWO = {"device": "gpu", "gpus": 1, "cpus": 2}, {"device": "gpu", "gpus": 2, "cpus": 4, "gpu_type": "A | B"}
SHAPE_OF_ONE, SHAPE_OF_TWO = Shape(2000, 1), Shape(4000, 2, gpu_types=("A", "B"))


def test_shapes_are_counted_over_the_latest_jobs(queue: Queue) -> None:
    old, *_ = [queue.submit(resources=ONE) for _ in range(3)]
    queue.submit(resources=TWO)
    with queue.factory() as session:
        assert recent_shapes(session) == {SHAPE_OF_ONE: 3, SHAPE_OF_TWO: 1}
        session.execute(text("UPDATE jobs SET created_at = now() - interval '29 days' WHERE number = :n"), {"n": old})
        assert recent_shapes(session) == {SHAPE_OF_ONE: 2, SHAPE_OF_TWO: 1}


def test_a_mix_is_read_once_a_minute_and_kept_while_it_is_much_the_same(queue: Queue) -> None:
    now = 0.0
    recent = RecentMix(clock=lambda: now)
    with queue.factory() as session:
        from_nothing = recent.rule(session)
        queue.submit(resources=ONE)
        assert recent.rule(session) is from_nothing
        now += MIX_SECONDS
        learned = recent.rule(session)
        assert learned.mix.shares[SHAPE_OF_ONE] > 0.9
        queue.submit(resources=ONE)
        now += MIX_SECONDS
        assert recent.rule(session) is learned
        for _ in range(2):
            queue.submit(resources=TWO)
        now += MIX_SECONDS
        assert recent.rule(session).mix.shares[SHAPE_OF_TWO] == pytest.approx(0.5, abs=0.1)


def test_a_share_of_a_gpu_is_a_demand_of_one() -> None:
    resources = {"device": "gpu", "gpus": 0.3, "cpus": 1, "memory": 1, "gpu_memory": None, "gpu_type": None}
    assert (demand_of(resources).gpus, demand_of(resources).gpu_milli) == (1, 300)
    whole = demand_of(resources | {"gpus": 2.0, "gpu_type": "V100M16|V100M32"})
    assert (whole.gpus, whole.gpu_milli, whole.gpu_types) == (2, 1000, ("V100M16", "V100M32"))
