"""What is shown of a job while it runs."""

import math
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, update

from stoker.jobs.accounts import Caller
from stoker.jobs.durations import past_durations
from stoker.jobs.live import with_live
from stoker.jobs.models import Attempt, User
from stoker.jobs.reads_jobs import Filters, JobView, list_jobs
from stoker.jobs.records import Batch, write_batch
from tests.support.queue import Queue


def shown(queue: Queue) -> dict[int, JobView]:
    """All jobs as a list shows them."""
    with queue.factory() as session:
        user = session.get_one(User, queue.user_id)
        caller = Caller(user.id, user.name, user.team_id, "vision", "member", 1)
        page = list_jobs(session, caller, Filters(), 50, None)
        return {view.number: view for view in with_live(session, past_durations(session), page.items)}


def test_only_a_running_job_has_a_loss_and_an_expected_end(queue: Queue) -> None:
    incarnation = queue.worker()
    ended, attempt = queue.running(incarnation)
    queue.finish(attempt, incarnation)
    running, attempt = queue.running(incarnation)
    with queue.factory() as session:
        for first, losses in ((1, (3.0, 2.5)), (3, (2.0, 1.5))):
            batch = Batch(metrics={"loss": ((first, first + 1), losses), "lr": ((first,), (0.1,))})
            write_batch(session, attempt, incarnation, batch)
        long_ago = func.now() - timedelta(seconds=100)
        session.execute(
            update(Attempt)
            .where(Attempt.id == attempt)
            .values(
                claimed_at=long_ago,
                first_step_at=long_ago,
                progressed_at=func.now(),
                progress={"step": 50, "steps": 100},
            )
        )
        session.commit()
    views = shown(queue)
    assert (views[ended].loss, views[ended].ends_at) == (None, None)
    assert views[running].loss == 1.5
    ends_at = views[running].ends_at
    assert ends_at is not None
    left = (ends_at - datetime.now(UTC)).total_seconds()
    assert 0 < left < 200  # half was done in 100 s


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_none(queue: Queue, value: float) -> None:
    incarnation = queue.worker()
    number, attempt = queue.running(incarnation)
    with queue.factory() as session:
        write_batch(session, attempt, incarnation, Batch(metrics={"loss": ((1,), (value,))}))
        session.commit()
    assert shown(queue)[number].loss is None
