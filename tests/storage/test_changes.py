"""What users change about their jobs: priority, name, tags, and which of their own goes first."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import update

from stoker.errors import AlreadyFinal
from stoker.jobs import changes, submissions
from stoker.jobs.models import User
from tests.support.queue import Queue


def change(queue: Queue, number: int, *, admin: bool = False, **fields: object) -> None:
    """Change a job as its owner."""
    with queue.factory() as session:
        changes.change(session, number, actor="ada", admin=admin, **fields)  # type: ignore[arg-type]
        session.commit()


def first(queue: Queue, number: int) -> None:
    """Put a job first."""
    with queue.factory() as session:
        changes.first(session, number, actor="ada")
        session.commit()


def test_the_first_of_ones_own_jobs_is_placed_first(queue: Queue) -> None:
    numbers = [queue.submit() for _ in range(4)]
    first(queue, numbers[2])
    first(queue, numbers[3])
    first(queue, numbers[3])  # is so already
    assert queue.events(numbers[3]).count("first") == 1
    for name, number in (("one", numbers[3]), ("two", numbers[2]), ("three", numbers[0])):
        queue.worker(name, cpus=1)
        assert [outgoing.job_number for outgoing in queue.dispatch()] == [number]
    with pytest.raises(changes.NotWaiting, match="only a job that waits can go first"):
        first(queue, numbers[3])


def test_priority_name_and_tags_change_and_leave_an_event(queue: Queue) -> None:
    number = queue.submit()
    change(queue, number, priority="high", name="other", tags=["a", "b"])
    change(queue, number, priority="high")
    job = queue.job(number)
    assert (job.priority, job.name, job.tags) == (2, "other", ["a", "b"])
    assert (job.spec["priority"], job.spec["name"]) == ("high", "other")
    assert queue.events(number).count("change") == 1


def test_the_priority_of_what_has_ended_stays(queue: Queue) -> None:
    number = queue.submit()
    with queue.factory() as session:
        submissions.cancel(session, number, actor="ada")
        session.commit()
    with pytest.raises(AlreadyFinal, match="cannot prioritise"):
        change(queue, number, priority="low")
    change(queue, number, tags=["kept"])
    assert queue.job(number).tags == ["kept"]


def test_a_team_has_one_urgent_job_at_a_time_and_administrators_any_number(queue: Queue) -> None:
    numbers = [queue.submit() for _ in range(3)]
    change(queue, numbers[0], priority="urgent")
    change(queue, numbers[0], priority="urgent")
    with pytest.raises(changes.UrgentInUse, match=f"job {numbers[0]} of the team is urgent"):
        change(queue, numbers[1], priority="urgent")
    with pytest.raises(changes.UrgentInUse):
        queue.submit(priority="urgent")
    change(queue, numbers[1], admin=True, priority="urgent")
    with queue.factory() as session:
        session.execute(update(User).values(role="admin"))
        session.commit()
    assert queue.submit(priority="urgent")


def test_two_urgent_submits_at_once_are_one(queue: Queue) -> None:
    def submit(_: int) -> bool:
        try:
            queue.submit(priority="urgent")
        except changes.UrgentInUse:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(submit, range(8))) == 1
