"""A job's way through the tables: placed, claimed, finished, lost, cancelled; and what the fence keeps out."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select, update

from stoker.errors import AlreadyFinal, AttemptClosed, InvalidInput, JobNotFound, MoveRefused, NotFound, Unrunnable
from stoker.jobs.attempts import Ending, first_step
from stoker.jobs.failures import Failure
from stoker.jobs.fleet import NameTaken, close_incarnation, set_draining
from stoker.jobs.leases import (
    close_expired,
    due_messages,
    record_send,
    renew,
    return_unclaimed,
    take_back,
    unclaimed_attempts,
)
from stoker.jobs.lifecycle import START, Outcome
from stoker.jobs.models import Attempt, Device, Job, Lease, MetricSegment, Result, Worker
from stoker.jobs.moves import apply
from stoker.jobs.records import Batch, cuts, write_batch
from stoker.jobs.submissions import cancel
from tests.support.queue import GPU, LEASE, Queue


def used(queue: Queue) -> tuple[int, int, int, int]:
    """CPUs, memory, attempts and devices that are promised, over all workers."""
    with queue.factory() as session:
        sums = func.sum(Worker.cpus_used_milli), func.sum(Worker.memory_used_bytes), func.sum(Worker.attempts_used)
        devices = session.scalar(select(func.coalesce(func.sum(Device.used_milli), 0)))
        cpus, memory, attempts = session.execute(select(*sums)).one()
        return int(cpus), int(memory), int(attempts), int(devices or 0)


def expire(queue: Queue, holder: uuid.UUID) -> None:
    """Let a lease run out."""
    with queue.factory() as session:
        session.execute(
            update(Lease)
            .where(Lease.holder_id == holder)
            .values(expires_at=func.now() - func.make_interval(0, 0, 0, 0, 0, 0, 1))
        )
        session.commit()


def test_a_job_is_placed_claimed_and_finished(queue: Queue) -> None:
    incarnation = queue.worker(devices=(GPU,))
    number = queue.submit()
    (outgoing,) = queue.dispatch()
    assert (outgoing.job_number, outgoing.ordinal, outgoing.worker, outgoing.owner) == (number, 1, "one", "ada")
    assert used(queue) == (1000, 10**8, 1, 1000)  # auto takes the GPU
    claimed = queue.claim(outgoing.attempt_id, incarnation)
    assert (claimed.device, claimed.device_uuids, claimed.dataset.name) == ("gpu", ("GPU-0",), "digits")
    assert queue.finish(outgoing.attempt_id, incarnation) == "succeeded"
    assert used(queue) == (0, 0, 0, 0)
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
    expire(queue, incarnation)
    expire(queue, attempt)
    with queue.factory() as session:
        take_back(session, attempt)
        session.commit()
    with queue.factory() as session:
        close_expired(session, incarnation)
        session.commit()
    assert queue.job(number).state == "queued"
    assert [(a.state, a.outcome) for a in queue.attempts(number)] == [("ended", "lost")]
    assert used(queue) == (0, 0, 0, 0)
    with queue.factory() as session, pytest.raises(AttemptClosed):
        write_batch(session, attempt, incarnation, Batch(log="late"))
    with pytest.raises(AttemptClosed):
        queue.finish(attempt, incarnation)
    with queue.factory() as session:
        assert session.scalar(select(func.count()).select_from(MetricSegment)) == 1
        assert not renew(session, incarnation, LEASE).alive


def test_a_renewed_lease_is_not_swept_and_says_what_is_asked(queue: Queue) -> None:
    incarnation = queue.worker()
    number, attempt = queue.running(incarnation)
    expire(queue, attempt)
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
    assert used(queue) == (0, 0, 0, 0)


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
    assert queue.dispatch() == []  # the only worker is suspect now


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
    expire(queue, first)
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


def test_dispatchers_side_by_side_never_promise_a_device_twice(queue: Queue) -> None:
    devices = tuple(GPU.__class__(f"GPU-{n}", n, "H100", 80 * 10**9) for n in range(4))
    queue.worker(cpus=64, devices=devices)
    for _ in range(10):
        queue.submit(resources={"device": "gpu", "memory": 10**8})
    with ThreadPoolExecutor(4) as pool:
        placed = [outgoing for found in pool.map(lambda _: queue.dispatch(), range(8)) for outgoing in found]
    assert len(placed) == len({outgoing.job_number for outgoing in placed}) == 4
    assert used(queue)[3] == 4000
