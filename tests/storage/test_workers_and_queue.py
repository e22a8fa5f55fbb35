"""Workers and the queue: leases, messages, names, drains, and what never fits."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import update

from stoker.errors import AttemptClosed, InvalidInput, NotFound, Unrunnable
from stoker.jobs.attempts import Ending
from stoker.jobs.failures import LOSSES_ANYWHERE, Failure
from stoker.jobs.fleet import STOPPED, NameTaken, close_incarnation, set_draining, stop_placing
from stoker.jobs.leases import (
    due_messages,
    record_send,
    renew,
    return_unclaimed,
    take_back,
    unclaimed_attempts,
)
from stoker.jobs.lifecycle import Outcome, State
from stoker.jobs.models import Attempt, Job
from stoker.jobs.submissions import cancel
from tests.support.queue import GPU, LEASE, Queue


def test_a_renewed_lease_is_not_swept_and_says_what_is_asked(queue: Queue) -> None:
    incarnation = queue.worker()
    number, attempt = queue.running(incarnation)
    queue.expire(attempt)
    with queue.factory() as session:
        assert renew(session, incarnation, LEASE).requests == {attempt: None}
        session.commit()
    with queue.factory() as session:
        take_back(session, attempt)
        assert session.get_one(Attempt, attempt).state == "running"
        cancel(session, number, actor="ada")
        session.commit()
    with queue.factory() as session:
        assert renew(session, incarnation, LEASE).requests == {attempt: "cancel"}


def test_a_job_that_takes_its_workers_down_is_suspected(queue: Queue) -> None:
    number = queue.submit()
    for name in ("one", "two", "three"):
        incarnation = queue.worker(name)
        with queue.factory() as session:
            session.execute(update(Job).values(not_before=None))
            session.commit()
        (outgoing,) = queue.dispatch()
        queue.claim(outgoing.attempt_id, incarnation)
        with queue.factory() as session:
            close_incarnation(session, incarnation, "killed")
            session.commit()
    failure = queue.job(number).failure
    assert failure is not None
    assert failure["class"] == "suspected_poison"


def test_a_worker_that_was_stopped_is_shown_as_that_until_it_is_started_again(queue: Queue) -> None:
    for name, reason in (("one", STOPPED), ("two", f"{STOPPED} by Flower"), ("three", "its lease ran out")):
        incarnation = queue.worker(name)
        with queue.factory() as session:
            close_incarnation(session, incarnation, reason)
            session.commit()
    assert queue.worker_states() == {"one": "stopped", "two": "stopped", "three": "lost"}
    again = queue.worker("one")
    assert queue.worker_states()["one"] == "live"
    with queue.factory() as session:
        stop_placing(session, again, 60)
        session.commit()
    assert queue.worker_states()["one"] == "stopping"


def test_what_a_trainer_blames_on_a_sound_device_uses_up_retries_and_is_no_loss_of_a_worker(queue: Queue) -> None:
    incarnation = queue.worker()
    number = queue.submit(max_retries=LOSSES_ANYWHERE)
    blames = Failure("device_error", "CUDA error", unproven=True)
    for failure in [blames] * LOSSES_ANYWHERE + [Failure("device_error", "Xid 79")]:
        with queue.factory() as session:
            session.execute(update(Job).values(not_before=None))
            session.commit()
        (outgoing,) = queue.dispatch()
        queue.claim(outgoing.attempt_id, incarnation)
        assert queue.finish(outgoing.attempt_id, incarnation, Ending(Outcome.FAILED, failure=failure)) == State.QUEUED
    assert queue.job(number).retries_used == LOSSES_ANYWHERE


def test_an_unclaimed_attempt_is_sent_again_and_then_queued_again(queue: Queue) -> None:
    queue.worker()
    number = queue.submit()
    (outgoing,) = queue.dispatch()
    with queue.factory() as session:
        assert due_messages(session, 3.0) == []
        again = due_messages(session, 0.0)
        assert [message.attempt_id for message in again] == [outgoing.attempt_id]
        assert unclaimed_attempts(session, 15.0) == []
        assert unclaimed_attempts(session, 0.0) == [outgoing.attempt_id]
        return_unclaimed(session, outgoing.attempt_id, 0.0)
        session.commit()
    assert queue.job(number).state == "queued"
    assert queue.dispatch() == []
    assert set(queue.worker_states().values()) == {"suspect"}


def test_nothing_new_is_placed_while_the_broker_refuses(queue: Queue) -> None:
    queue.worker()
    queue.submit()
    (outgoing,) = queue.dispatch(sent=False)
    with queue.factory() as session:
        record_send(session, outgoing.attempt_id, "refused")
        session.commit()
        assert unclaimed_attempts(session, 0.0) == []  # the time to claim has not begun
    queue.submit()
    assert queue.dispatch() == []
    with queue.factory() as session:
        record_send(session, outgoing.attempt_id, None)
        session.commit()
    assert len(queue.dispatch()) == 1


def test_a_name_belongs_to_one_live_worker(queue: Queue) -> None:
    first = queue.worker()
    with pytest.raises(NameTaken, match="pid 1 on host"):
        queue.worker()
    number, attempt = queue.running(first)
    queue.expire(first)
    second = queue.worker()
    assert queue.job(number).state == "queued"
    with pytest.raises(AttemptClosed):
        queue.finish(attempt, first)
    (outgoing,) = queue.dispatch()
    assert queue.claim(outgoing.attempt_id, second).ordinal == 2


def test_a_draining_worker_takes_nothing_new(queue: Queue) -> None:
    queue.worker()
    with queue.factory() as session:
        set_draining(session, "one", True, actor="ada")
        session.commit()
    queue.submit()
    assert queue.dispatch() == []
    with queue.factory() as session, pytest.raises(NotFound):
        set_draining(session, "none", True, actor="ada")


def test_what_no_worker_could_ever_run_is_refused(queue: Queue) -> None:
    huge = {"cpus": 99, "memory": "1GB"}
    assert queue.submit(resources=huge)  # no worker is known yet
    queue.worker(cpus=4)
    with pytest.raises(Unrunnable, match="needs 99 CPUs; 4 of 4"):
        queue.submit(resources=huge)
    with pytest.raises(Unrunnable, match="has no GPU"):
        queue.submit(resources={"device": "gpu"})
    with pytest.raises(InvalidInput, match="nearest: digits"):
        queue.submit(train={"dataset": "digit"})


def test_dispatchers_side_by_side_never_promise_a_device_twice(queue: Queue) -> None:
    devices = tuple(GPU.__class__(f"GPU-{n}", n, "H100", 80 * 10**9) for n in range(4))
    queue.worker(cpus=64, devices=devices)
    for _ in range(10):
        queue.submit(resources={"device": "gpu", "memory": 10**8})
    with ThreadPoolExecutor(4) as pool:
        placed = [outgoing for found in pool.map(lambda _: queue.dispatch(), range(8)) for outgoing in found]
    assert len(placed) == len({outgoing.job_number for outgoing in placed}) == 4
    assert queue.used()[3] == 4000
