"""What the database teaches of how long jobs take: ended ones, waiting ones with a checkpoint, running ones."""

from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from stoker.jobs.attempts import Ending
from stoker.jobs.durations import Lasts, RecentDurations, past_durations, running_durations
from stoker.jobs.lifecycle import Outcome
from stoker.jobs.models import Attempt, Estimate, Job
from stoker.jobs.prospects import Foresight
from tests.support.queue import Queue


def ended(queue: Queue, incarnation: UUID, seconds: float, outcome: Outcome = Outcome.SUCCEEDED) -> int:
    """A job that ran so long."""
    number, attempt = queue.running(incarnation)
    queue.finish(attempt, incarnation, Ending(outcome, ran_seconds=seconds))
    return number


def expected(queue: Queue, number: int) -> float:
    """The seconds that a job is expected to run."""
    with queue.factory() as session:
        return Lasts(session, past_durations(session), [])[number].p50_seconds


def half_done(session: Session, attempt: UUID) -> None:
    """An attempt has made half of its steps, in a hundred seconds."""
    session.execute(
        update(Attempt)
        .where(Attempt.id == attempt)
        .values(
            claimed_at=func.now() - timedelta(seconds=100),
            first_step_at=func.now() - timedelta(seconds=100),
            progressed_at=func.now(),
            progress={"step": 50, "steps": 100},
        )
    )


def test_jobs_that_ended_by_themselves_teach_and_those_that_were_preempted_do_not(queue: Queue) -> None:
    incarnation = queue.worker()
    for _ in range(6):
        ended(queue, incarnation, 100.0)
    ended(queue, incarnation, 9000.0, Outcome.PREEMPTED)
    assert expected(queue, queue.submit()) == pytest.approx(100.0)


def test_old_jobs_are_forgotten(queue: Queue) -> None:
    number = ended(queue, queue.worker(), 100.0)
    waiting = queue.submit()
    known = expected(queue, waiting)
    with queue.factory() as session:
        long_ago = func.now() - timedelta(days=29)
        session.execute(update(Job).where(Job.number == number).values(finished_at=long_ago))
        session.commit()
    assert expected(queue, waiting) != known


def test_a_running_job_is_judged_by_its_own_pace_once_it_has_one(queue: Queue) -> None:
    incarnation = queue.worker()
    for _ in range(6):
        ended(queue, incarnation, 1000.0)
    number, attempt = queue.running(incarnation)
    with queue.factory() as session:
        first = running_durations(session, past_durations(session), [number])[0].left.p50_seconds
        assert first == pytest.approx(1000.0, rel=0.05)
        half_done(session, attempt)
        live = running_durations(session, past_durations(session), [number])[0].left.p50_seconds
    assert 100.0 <= live < 150.0  # half was done in 100 s


def test_where_no_job_has_ended_yet_one_that_runs_tells_when_those_like_it_start_and_end(queue: Queue) -> None:
    incarnation = queue.worker(cpus=1)
    _, attempt = queue.running(incarnation)
    waiting = queue.submit()
    with queue.factory() as session:
        half_done(session, attempt)
        look = Foresight().look(session)
        (found,) = look.prospects(session, [waiting])
    assert found.expected.start_at is not None
    assert found.expected.end_at is not None
    assert (found.expected.start_at - look.now).total_seconds() == pytest.approx(100.0, rel=0.3)
    assert (found.expected.end_at - found.expected.start_at).total_seconds() == pytest.approx(200.0, rel=0.1)


@pytest.mark.parametrize(("jobs", "good"), [(1, 0.5), (4, 2.0)])
def test_what_was_learned_of_few_jobs_is_soon_read_again(queue: Queue, jobs: int, good: float) -> None:
    incarnation = queue.worker()
    for _ in range(jobs):
        ended(queue, incarnation, 100.0)
    times = iter([0.0, good - 0.1, good + 0.1, good + 0.1])  # asked once to look, once more to read
    recent = RecentDurations(clock=lambda: next(times))
    with queue.factory() as session:
        first = recent.read(session)
        assert recent.read(session) is first
        assert recent.read(session) is not first


def test_while_no_job_has_told_how_long_it_takes_the_order_is_told_and_no_time(queue: Queue) -> None:
    incarnation = queue.worker(cpus=1)
    queue.running(incarnation)
    waiting = [queue.submit(), queue.submit()]
    with queue.factory() as session:
        found = Foresight().look(session).prospects(session, waiting)
        assert [one.position for one in found] == [1, 2]
        assert {(one.expected.start_at, one.expected.start_high_at, one.expected.end_at) for one in found} == {
            (None,) * 3
        }
        assert session.scalar(select(func.count()).select_from(Estimate)) == 0
