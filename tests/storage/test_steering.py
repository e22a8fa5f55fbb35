"""Hold, release, retry, preempt: what they do at every stage of a job."""

import pytest

from stoker.errors import AlreadyFinal, InvalidInput, JobNotFound, MoveRefused
from stoker.jobs.attempts import Ending
from stoker.jobs.failures import Failure
from stoker.jobs.leases import renew
from stoker.jobs.lifecycle import Outcome
from stoker.jobs.steering import NotRunning, PreemptFirst, preempt, retry, set_held
from tests.support.queue import LEASE, Queue

FAILED = Ending(Outcome.FAILED, failure=Failure("nan_loss", "loss is nan at step 7"))


def hold(queue: Queue, number: int, held: bool = True) -> None:
    """Hold or release a job."""
    with queue.factory() as session:
        set_held(session, number, held, actor="ada")
        session.commit()


def test_a_held_job_is_not_placed_until_it_is_released(queue: Queue) -> None:
    queue.worker()
    number = queue.submit()
    hold(queue, number)
    hold(queue, number)
    assert queue.dispatch() == []
    hold(queue, number, held=False)
    assert [outgoing.job_number for outgoing in queue.dispatch()] == [number]
    assert queue.events(number).count("hold") == 1
    with pytest.raises(PreemptFirst, match=f"stoker preempt {number}"):
        hold(queue, number)


def test_a_final_job_cannot_be_held(queue: Queue) -> None:
    incarnation = queue.worker()
    number, attempt = queue.running(incarnation)
    queue.finish(attempt, incarnation)
    with pytest.raises(AlreadyFinal):
        hold(queue, number)
    with queue.factory() as session:
        with pytest.raises(MoveRefused, match="it is succeeded"):
            retry(session, number, actor="ada")
        with pytest.raises(JobNotFound):
            retry(session, 10**6, actor="ada")
        with pytest.raises(InvalidInput, match="known: latest"):
            retry(session, number, actor="ada", origin="worst")


def test_a_retry_forgets_what_the_job_had_used_up(queue: Queue) -> None:
    incarnation = queue.worker()
    number, attempt = queue.running(incarnation)
    assert queue.finish(attempt, incarnation, FAILED) == "failed"
    with queue.factory() as session:
        retry(session, number, actor="ada")
        session.commit()
    job = queue.job(number)
    assert (job.state, job.failure, job.finished_at, job.retries_used) == ("queued", None, None, 0)
    (outgoing,) = queue.dispatch()
    assert queue.claim(outgoing.attempt_id, incarnation).ordinal == 2


def test_a_preempted_job_is_asked_to_stop_and_goes_on_later(queue: Queue) -> None:
    incarnation = queue.worker()
    number, attempt = queue.running(incarnation)
    for _ in range(2):
        with queue.factory() as session:
            preempt(session, number, actor="ada")
            session.commit()
    assert queue.events(number).count("preempt_requested") == 1
    with queue.factory() as session:
        assert renew(session, incarnation, LEASE).requests == {attempt: "preempt"}
    assert queue.finish(attempt, incarnation, Ending(Outcome.PREEMPTED)) == "queued"
    with queue.factory() as session, pytest.raises(NotRunning, match="is queued"):
        preempt(session, number, actor="ada")
    (outgoing,) = queue.dispatch()
    with queue.factory() as session:  # not claimed yet: at once
        assert preempt(session, number, actor="ada").state == "queued"
        session.commit()
    assert queue.attempts(number)[1].outcome == "preempted"
    assert outgoing.ordinal == 2
