"""What was told of starts is kept, compared with what came, and teaches."""

from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from stoker.jobs.models import Estimate, Job
from stoker.jobs.outlook import Outlook
from stoker.jobs.told import ENOUGH, Correction, correction, past_error, record
from tests.support.queue import Queue

HOUR = 3600.0


def tell(queue: Queue, numbers: list[int], seconds: float) -> None:
    """Estimates of these jobs, told two hours ago."""
    with queue.factory() as session:
        now = session.execute(select(func.now())).scalar_one()
        outlook = Outlook((), seconds, seconds, seconds, None, None)
        record(session, now - timedelta(hours=2), [(number, outlook, seconds) for number in numbers])
        session.commit()


def start(queue: Queue, number: int, hours_ago: float) -> None:
    """The job has started so long ago."""
    with queue.factory() as session:
        started = func.now() - timedelta(hours=hours_ago)
        session.execute(update(Job).where(Job.number == number).values(started_at=started))
        session.commit()


def test_the_error_is_that_of_the_first_estimate_of_jobs_that_started(queue: Queue) -> None:
    early, waiting = queue.submit(), queue.submit()
    tell(queue, [early, waiting], HOUR / 2)
    with queue.factory() as session:
        assert past_error(session).waits == 0
    start(queue, early, 1.0)
    with queue.factory() as session:
        found = past_error(session)
    assert found.waits == 1
    assert found.median_error == pytest.approx(0.5, abs=0.01)  # half an hour was told, an hour came
    assert found.bias == pytest.approx(-0.5, abs=0.01)


def test_waits_that_are_overdue_teach_before_they_end(queue: Queue) -> None:
    numbers = [queue.submit() for _ in range(ENOUGH)]
    tell(queue, numbers, HOUR)
    with queue.factory() as session:
        assert correction(session).middle == pytest.approx(2.0, rel=0.01)  # all wait for two hours already
    for number in numbers[:15]:
        start(queue, number, 1.0)
    with queue.factory() as session:
        assert correction(session).middle == pytest.approx(1.0, rel=0.01)


def test_a_wait_that_is_not_over_and_not_overdue_teaches_nothing(queue: Queue) -> None:
    tell(queue, [queue.submit() for _ in range(ENOUGH)], 3 * HOUR)
    with queue.factory() as session:
        assert correction(session) == Correction()


def test_of_one_job_an_estimate_is_kept_every_ten_minutes(queue: Queue) -> None:
    number = queue.submit()
    for _ in range(3):
        tell(queue, [number], HOUR)
    with queue.factory() as session:
        assert session.scalar(select(func.count()).select_from(Estimate)) == 1
