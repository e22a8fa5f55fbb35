"""A job's way through the tables: placed, claimed, finished, lost, cancelled; and what the fence keeps out."""

import uuid

import pytest
from sqlalchemy import func, select, update

from stoker.errors import AlreadyFinal, AttemptClosed, InvalidInput, JobNotFound, MoveRefused, NotFound
from stoker.jobs.attempts import Ending, first_step
from stoker.jobs.failures import Failure
from stoker.jobs.leases import (
    close_expired,
    renew,
    take_back,
)
from stoker.jobs.lifecycle import START, Outcome
from stoker.jobs.models import Attempt, Job, MetricSegment, Result
from stoker.jobs.moves import apply
from stoker.jobs.records import Batch, cuts, write_batch
from stoker.jobs.submissions import cancel
from tests.support.queue import GPU, LEASE, Queue


def test_a_job_is_placed_claimed_and_finished(queue: Queue) -> None:
    incarnation = queue.worker(devices=(GPU,))
    number = queue.submit()
    (outgoing,) = queue.dispatch()
    assert (outgoing.job_number, outgoing.ordinal, outgoing.worker, outgoing.owner) == (number, 1, "one", "ada")
    assert queue.used() == (1000, 10**8, 1, 1000)  # auto takes the GPU
    claimed = queue.claim(outgoing.attempt_id, incarnation)
    assert claimed.dataset is not None
    assert (claimed.device, claimed.device_uuids, claimed.dataset.name) == ("gpu", ("GPU-0",), "digits")
    assert queue.finish(outgoing.attempt_id, incarnation) == "succeeded"
    assert queue.used() == (0, 0, 0, 0)
    assert queue.events(number) == ["submit", "place", "start", "succeed"]
    with queue.factory() as session:
        assert session.get_one(Result, number).accuracy == 0.5


def test_a_message_that_is_late_doubled_or_foreign_claims_nothing(queue: Queue) -> None:
    incarnation = queue.worker()
    queue.submit()
    (outgoing,) = queue.dispatch()
    for attempt, holder in ((outgoing.attempt_id, uuid.uuid4()), (uuid.uuid4(), incarnation)):
        with pytest.raises(AttemptClosed):
            queue.claim(attempt, holder)
    queue.claim(outgoing.attempt_id, incarnation)
    with pytest.raises(AttemptClosed):
        queue.claim(outgoing.attempt_id, incarnation)


def test_a_closed_attempt_can_write_nothing(queue: Queue) -> None:
    incarnation = queue.worker()
    number, attempt = queue.running(incarnation)
    with queue.factory() as session:
        write_batch(session, attempt, incarnation, Batch(metrics={"loss": ([1, 2], [0.5, 0.25])}, log="hello"))
        session.commit()
    queue.expire(incarnation)
    queue.expire(attempt)
    with queue.factory() as session:
        take_back(session, attempt)
        session.commit()
    with queue.factory() as session:
        close_expired(session, incarnation)
        session.commit()
    assert queue.job(number).state == "queued"
    assert [(a.state, a.outcome) for a in queue.attempts(number)] == [("ended", "lost")]
    assert queue.used() == (0, 0, 0, 0)
    with queue.factory() as session, pytest.raises(AttemptClosed):
        write_batch(session, attempt, incarnation, Batch(log="late"))
    with pytest.raises(AttemptClosed):
        queue.finish(attempt, incarnation)
    with queue.factory() as session:
        assert session.scalar(select(func.count()).select_from(MetricSegment)) == 1
        assert not renew(session, incarnation, LEASE).alive


def test_rows_after_the_resumed_checkpoint_are_superseded(queue: Queue) -> None:
    incarnation = queue.worker()
    number, first = queue.running(incarnation)
    queue.finish(first, incarnation, Ending(Outcome.PREEMPTED))
    (second,) = queue.dispatch()
    queue.claim(second.attempt_id, incarnation)
    with queue.factory() as session:
        session.execute(update(Attempt).where(Attempt.id == second.attempt_id).values(resumed_step=40))
        session.commit()
        assert cuts(session, number) == {first: 40, second.attempt_id: None}


@pytest.mark.parametrize("stage", ["queued", "placed", "running", "finished"])
def test_cancel_at_every_stage(queue: Queue, stage: str) -> None:
    incarnation = queue.worker()
    number = queue.submit()
    attempt = None
    if stage != "queued":
        attempt = queue.dispatch()[0].attempt_id
    if stage in {"running", "finished"} and attempt:
        queue.claim(attempt, incarnation)
    if stage == "finished" and attempt:
        queue.finish(attempt, incarnation)
        with queue.factory() as session, pytest.raises(AlreadyFinal):
            cancel(session, number, actor="ada")
        return
    for _ in range(2):  # the second time changes nothing
        with queue.factory() as session:
            cancel(session, number, actor="ada")
            session.commit()
    if stage == "running" and attempt:
        assert queue.job(number).state == "running"
        assert queue.finish(attempt, incarnation, Ending(Outcome.CANCELLED)) == "cancelled"
    assert queue.job(number).state == "cancelled"
    assert queue.events(number).count("cancel") == 1
    assert queue.used() == (0, 0, 0, 0)


def test_a_requeue_that_a_cancel_forbids_becomes_the_cancel(queue: Queue) -> None:
    incarnation = queue.worker()
    number, attempt = queue.running(incarnation)
    with queue.factory() as session:
        cancel(session, number, actor="ada")
        session.commit()
    assert queue.finish(attempt, incarnation, Ending(Outcome.PREEMPTED)) == "cancelled"
    assert queue.dispatch() == []


def test_a_success_that_commits_before_the_cancel_wins(queue: Queue) -> None:
    incarnation = queue.worker()
    number, attempt = queue.running(incarnation)
    with queue.factory() as session:
        cancel(session, number, actor="ada")
        session.commit()
    assert queue.finish(attempt, incarnation) == "succeeded"


def test_own_failures_use_up_retries_with_a_pause(queue: Queue) -> None:
    incarnation = queue.worker()
    number, attempt = queue.running(incarnation, max_retries=1)
    failed = Ending(Outcome.FAILED, failure=Failure("user_error", "ValueError: 3"))
    assert queue.finish(attempt, incarnation, failed) == "queued"
    assert queue.dispatch() == []  # backing off
    with queue.factory() as session:
        session.execute(update(Job).values(not_before=None))
        session.commit()
    (second,) = queue.dispatch()
    queue.claim(second.attempt_id, incarnation)
    assert queue.finish(second.attempt_id, incarnation, failed) == "failed"
    failure = queue.job(number).failure
    assert failure is not None
    assert failure["class"] == "user_error"
    assert failure["evidence"] == "ValueError: 3"


def test_children_wait_for_their_parents_and_end_with_them(queue: Queue) -> None:
    incarnation = queue.worker()
    parent, attempt = queue.running(incarnation)
    child = queue.submit(after=[parent])
    grandchild = queue.submit(after=[child])
    assert queue.job(child).state == "waiting"
    queue.finish(attempt, incarnation)
    assert queue.job(child).state == "queued"
    with queue.factory() as session:
        cancel(session, child, actor="ada")
        session.commit()
    assert queue.job(grandchild).state == "cancelled"
    with pytest.raises(InvalidInput, match="cancelled"):
        queue.submit(after=[child])
    with pytest.raises(NotFound):
        queue.submit(after=[10**6])


def test_the_first_step_pins_the_job_to_a_kind_of_machine(queue: Queue) -> None:
    incarnation = queue.worker()
    number, attempt = queue.running(incarnation)
    with queue.factory() as session:
        first_step(session, attempt, incarnation, "cpu-x")
        session.commit()
    queue.finish(attempt, incarnation, Ending(Outcome.PREEMPTED))
    assert queue.job(number).pinned_machine == "cpu-x"
    (outgoing,) = queue.dispatch()
    queue.claim(outgoing.attempt_id, incarnation)
    with queue.factory() as session:
        first_step(session, outgoing.attempt_id, incarnation, "cpu-y")
        session.commit()
    assert "resumed_inexactly" in queue.events(number)


def test_moves_are_refused_by_state(queue: Queue) -> None:
    number = queue.submit()
    with queue.factory() as session:
        with pytest.raises(MoveRefused, match=f"cannot start job {number}: it is queued"):
            apply(session, START, number, actor="x", reason="y")
        with pytest.raises(JobNotFound):
            apply(session, START, 10**6, actor="x", reason="y")
