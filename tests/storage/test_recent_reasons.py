"""Who follow a job ask again and again why it waits: one plan tells them all for a moment."""

import pytest
from sqlalchemy import event

from stoker.jobs.explaining import why
from stoker.jobs.models import Job
from stoker.jobs.prospects import WHOLE, Foresight
from stoker.jobs.recent_reasons import RecentReasons
from tests.support.queue import Queue


class Clock:
    """Stands until it is set."""

    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=[WHOLE, 0])
def foresight(request: pytest.FixtureRequest, clock: Clock) -> Foresight:
    """One for queues that are read whole, one for those that are not."""
    return Foresight(reasons=RecentReasons(1.0, clock), whole=request.param)


def told(queue: Queue, number: int, foresight: Foresight) -> str:
    with queue.factory() as session:
        return foresight.reason(session, number).code


def test_one_plan_tells_all_who_ask_within_a_second(queue: Queue, foresight: Foresight, clock: Clock) -> None:
    number = queue.submit(resources={"memory": 10**8, "cpus": 2})
    assert told(queue, number, foresight) == "no_worker"
    queue.worker(cpus=1)
    asked: list[str] = []
    event.listen(queue.engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    clock.seconds += 0.99
    assert told(queue, number, foresight) == "no_worker"
    assert asked == []
    clock.seconds += 0.02
    assert told(queue, number, foresight) == "cpus"


def test_a_job_that_came_since_is_looked_up_and_tells_the_others_what_is_new(
    queue: Queue, foresight: Foresight
) -> None:
    number = queue.submit(resources={"memory": 10**8, "cpus": 2})
    assert told(queue, number, foresight) == "no_worker"
    queue.worker(cpus=1)
    assert told(queue, number, foresight) == "no_worker"
    late = queue.submit()
    assert told(queue, late, foresight) == "next"
    assert told(queue, number, foresight) == "cpus"


def test_who_asks_for_more_than_the_reason_is_told_what_is_so_now(queue: Queue, foresight: Foresight) -> None:
    number = queue.submit(resources={"memory": 10**8, "cpus": 2})
    assert told(queue, number, foresight) == "no_worker"
    queue.worker(cpus=1)
    with queue.factory() as session:
        assert why(session, session.get_one(Job, number), foresight).code == "cpus"
