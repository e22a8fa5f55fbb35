"""What runs is kept between passes, and told as it is now."""

from uuid import UUID

from sqlalchemy import event, func, update

from stoker.jobs.models import Attempt, Job
from stoker.jobs.present import Runs
from stoker.jobs.situation import Running
from tests.support.queue import Queue


def now(queue: Queue, runs: Runs) -> list[Running]:
    """What runs; the same as if it was read for the first time."""
    with queue.factory() as session:
        found = runs.read(session)
        assert found == Runs().read(session)
    return found


def change(queue: Queue, number: int, attempt: UUID, **values: object) -> None:
    """Change a job, or its attempt where that has such columns."""
    with queue.factory() as session:
        if hasattr(Attempt, next(iter(values))):
            session.execute(update(Attempt).where(Attempt.id == attempt).values(**values))
        else:
            session.execute(update(Job).where(Job.number == number).values(**values))
        session.commit()


def test_each_change_of_what_runs_is_seen(queue: Queue) -> None:
    incarnation, runs = queue.worker(), Runs()
    assert now(queue, runs) == []
    number = queue.submit(time_limit=60)
    (outgoing,) = queue.dispatch()
    attempt = outgoing.attempt_id
    (placed,) = now(queue, runs)
    assert (placed.number, placed.claimed, placed.time_limit_seconds) == (number, False, 60)
    queue.claim(attempt, incarnation)
    (claimed,) = now(queue, runs)
    assert (claimed.claimed, claimed.leaves_for) == (True, None)
    assert claimed.kept_at > placed.kept_at
    change(queue, number, attempt, priority=2)
    assert now(queue, runs)[0].priority == 2
    change(queue, number, attempt, preempted_at=func.now())
    assert now(queue, runs)[0].preempted_at is not None
    change(queue, number, attempt, cancel_requested_at=func.now())
    assert now(queue, runs)[0].leaves_for == 0
    other, _ = queue.running(incarnation)
    change(queue, number, attempt, preempt_requested_at=func.now(), preempt_for=other)
    assert now(queue, runs)[0].leaves_for == other
    assert [running.number for running in now(queue, runs)] == [number, other]
    queue.finish(attempt, incarnation)
    assert [running.number for running in now(queue, runs)] == [other]


def test_what_a_job_runs_on_is_read_once(queue: Queue) -> None:
    incarnation, runs = queue.worker(), Runs()
    queue.running(incarnation)
    now(queue, runs)
    asked: list[str] = []
    event.listen(queue.engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    with queue.factory() as session:
        (first,), (second,) = runs.read(session), runs.read(session)
    assert first is second
    assert not any("allocations" in statement for statement in asked)
