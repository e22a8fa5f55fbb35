"""What was submitted in the last days: what counts, from when on it is known, and what it does to estimates."""

from datetime import timedelta

import pytest
from sqlalchemy import func, update

from stoker.jobs.arrivals import DAY_SECONDS
from stoker.jobs.attempts import Ending
from stoker.jobs.durations import past_durations
from stoker.jobs.lifecycle import Outcome, State
from stoker.jobs.models import Job
from stoker.jobs.prospects import Foresight
from stoker.jobs.submissions import cancel
from stoker.jobs.submitted import RecentlySubmitted, submitted
from tests.support.queue import Queue

HOUR = 3600.0


def submit(queue: Queue, hours_ago: float, **fields: object) -> int:
    """A job that was submitted so long ago."""
    number = queue.submit(**fields)
    created(queue, number, hours_ago)
    return number


def created(queue: Queue, number: int, hours_ago: float) -> None:
    """Let a job be so old."""
    with queue.factory() as session:
        at = func.now() - timedelta(hours=hours_ago)
        session.execute(update(Job).where(Job.number == number).values(created_at=at))
        session.commit()


def test_the_jobs_of_the_last_days_come_again_but_those_that_were_cancelled_unstarted(queue: Queue) -> None:
    submit(queue, 24 * 9)
    kept, cancelled = submit(queue, 30), submit(queue, 20)
    with queue.factory() as session:
        cancel(session, number=cancelled, actor="ada")
        session.commit()
    with queue.factory() as session:
        found = submitted(session)
        (job, like), now = found.jobs[0], 0.0
        assert [one.number for one, _ in found.jobs] == [kept]
        assert found.since is not None
        assert job.queued_at - found.since == pytest.approx(24 * 9 * HOUR - 30 * HOUR, abs=60)
        days = found.days(past_durations(session), job.queued_at + 30 * HOUR)
    assert [len(day) for day in days] == [0, 1, 0, 0, 0, 0, 0]
    assert days[1][0].after_seconds == pytest.approx(18 * HOUR)
    assert like.work > now


def test_a_new_installation_expects_nothing(queue: Queue) -> None:
    with queue.factory() as session:
        assert submitted(session).days(past_durations(session), 1e9) == []
    submit(queue, 20)
    with queue.factory() as session:
        found = submitted(session)
        assert found.days(past_durations(session), found.jobs[0][0].queued_at + 20 * HOUR) == []


def test_they_are_read_again_after_some_minutes(queue: Queue) -> None:
    times = iter([0.0, 599.0, 601.0, 601.0])  # asked once to look, once more to read
    recent = RecentlySubmitted(clock=lambda: next(times))
    with queue.factory() as session:
        first = recent.read(session)
        assert recent.read(session) is first
        assert recent.read(session) is not first


def test_who_waits_is_told_of_a_later_start_where_such_days_bring_jobs_that_go_first(queue: Queue) -> None:
    incarnation = queue.worker(cpus=1)
    for _ in range(3):  # such jobs run for an hour
        number, attempt = queue.running(incarnation)
        queue.finish(attempt, incarnation, Ending(Outcome.SUCCEEDED, ran_seconds=HOUR))
        created(queue, number, 24 * 5)
    queue.running(incarnation)
    waiting = queue.submit(priority="normal")

    def start() -> float:
        with queue.factory() as session:
            look = Foresight().look(session, [waiting])
            at = look.prospects(session, [waiting])[0].expected.start_at
            assert at is not None
            return (at - look.now).total_seconds()

    alone = start()
    for day in range(1, 6):  # each day brought three that are high, at the time of day that it will be soon
        for _ in range(3):
            number = submit(queue, 24 * day - 0.2, priority="high")
            with queue.factory() as session:
                session.execute(
                    update(Job).where(Job.number == number).values(state=State.SUCCEEDED, finished_at=func.now())
                )
                session.commit()
    assert alone == pytest.approx(HOUR, rel=0.3)
    assert start() > alone + 1.5 * HOUR
    assert start() < DAY_SECONDS
