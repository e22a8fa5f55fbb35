"""What users do while a dispatcher, a worker or a sweep is at the same job."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from stoker.jobs.attempts import Ending
from stoker.jobs.blobs import store
from stoker.jobs.collect import collect
from stoker.jobs.dispatch import dispatch
from stoker.jobs.failures import Failure
from stoker.jobs.lanes import Lanes
from stoker.jobs.leases import renew, return_unclaimed
from stoker.jobs.lifecycle import Outcome
from stoker.jobs.models import Attempt, Blob, Checkpoint, Chunk, Job, Lease, Worker
from stoker.jobs.records import Batch, add_checkpoint, best_checkpoints, report_damaged, write_batch
from stoker.jobs.situation import Candidate, Lane
from stoker.jobs.steering import ParentFailed, retry, set_held
from stoker.jobs.submissions import cancel
from stoker.jobs.sweep import Contact, sweep
from stoker.jobs.window import WINDOW
from stoker.settings import Settings
from tests.support.queue import Queue
from tests.support.waiting import wait_for

PAST = timedelta(seconds=1)
FAILED = Ending(Outcome.FAILED, failure=Failure("nan_loss", "loss is nan"))


@contextmanager
def in_the_middle(queue: Queue) -> Iterator[Session]:
    """A pass of the dispatcher that has written its placements and not committed them."""
    with queue.factory() as session:
        dispatch(session)
        yield session


def somebody_waits(queue: Queue) -> bool:
    """Whether a transaction waits for a lock of another."""
    with queue.factory() as session:
        waiting = text(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        return bool(session.scalar(waiting))


def in_a_transaction(queue: Queue, act: object, number: int) -> None:
    with queue.factory() as session:
        act(session, number)  # type: ignore[operator]
        session.commit()


def test_a_cancel_that_waits_for_the_dispatcher_cancels_what_it_placed(queue: Queue) -> None:
    queue.worker()
    number = queue.submit()
    with ThreadPoolExecutor(1) as pool, in_the_middle(queue) as session:
        asked = pool.submit(in_a_transaction, queue, lambda s, n: cancel(s, n, actor="ada"), number)
        wait_for(lambda: somebody_waits(queue), 30, "the cancel to wait")
        session.commit()
        asked.result(10)
    assert queue.job(number).state == "cancelled"
    assert [attempt.outcome for attempt in queue.attempts(number)] == ["cancelled"]


def test_a_hold_or_a_cancel_during_a_pass_is_kept_and_hinders_nobody(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.worker()
    held, cancelled, other = queue.submit(), queue.submit(), queue.submit()

    def meanwhile(lanes: Lanes, due: Sequence[Lane]) -> list[Candidate]:
        found = read(lanes, due)
        in_a_transaction(queue, lambda s, n: set_held(s, n, True, actor="ada"), held)
        in_a_transaction(queue, lambda s, n: cancel(s, n, actor="ada"), cancelled)
        return found

    read = Lanes.read
    monkeypatch.setattr(Lanes, "read", meanwhile)
    assert [outgoing.job_number for outgoing in queue.dispatch()] == [other]
    assert (queue.job(held).state, queue.job(cancelled).state) == ("queued", "cancelled")


def test_an_attempt_that_cannot_be_ended_hinders_no_other(queue: Queue) -> None:
    stuck = queue.running(queue.worker("one", cpus=1))[0]
    queue.factory().connection()
    free = queue.running(queue.worker("two", cpus=1))[0]
    with queue.factory() as session:
        first = session.scalars(select(Attempt.worker_id).where(Attempt.job_number == stuck)).one()
        session.execute(update(Worker).where(Worker.id == first).values(cpus_used_milli=0))
        session.execute(update(Lease).values(expires_at=func.now() - PAST))
        session.commit()
    contact = Contact(lease_seconds=0.0)
    sweep(queue.factory, contact, Settings())
    assert (queue.job(stuck).state, queue.job(free).state) == ("running", "queued")


def test_jobs_pinned_to_a_machine_that_is_gone_stand_in_nobodys_way(queue: Queue) -> None:
    for _ in range(WINDOW):
        queue.submit()
    with queue.factory() as session:
        session.execute(update(Job).values(pinned_machine="gone", shape=b"gone"))
        session.commit()
    number = queue.submit()
    queue.worker()
    assert [outgoing.job_number for outgoing in queue.dispatch()] == [number]


def test_one_incident_makes_a_worker_suspect_once(queue: Queue) -> None:
    queue.worker(cpus=8)
    for _ in range(6):
        queue.submit()
    for outgoing in queue.dispatch():
        with queue.factory() as session:
            return_unclaimed(session, outgoing.attempt_id, 0.0)
            session.commit()
    with queue.factory() as session:
        short = Worker.suspect_until - func.now() <= timedelta(seconds=30)
        assert session.execute(select(short, Worker.suspect_count)).one() == (True, 1)


def test_a_retried_child_waits_for_its_parents_again(queue: Queue) -> None:
    incarnation = queue.worker()
    parent, attempt = queue.running(incarnation)
    child = queue.submit(after=[parent])
    in_a_transaction(queue, lambda s, n: cancel(s, n, actor="ada"), child)
    in_a_transaction(queue, lambda s, n: retry(s, n, actor="ada"), child)
    assert queue.job(child).state == "waiting"
    queue.finish(attempt, incarnation, FAILED)
    assert queue.job(child).state == "cancelled"
    with queue.factory() as session, pytest.raises(ParentFailed, match=f"job {parent}"):
        retry(session, child, actor="ada")


def test_a_long_chain_ends_with_its_first_job(queue: Queue) -> None:
    chain = [queue.submit()]
    for _ in range(40):
        chain.append(queue.submit(after=[chain[-1]]))
    in_a_transaction(queue, lambda s, n: cancel(s, n, actor="ada"), chain[0])
    assert {queue.job(number).state for number in chain} == {"cancelled"}


def test_what_ran_before_a_retry_counts_for_no_time_limit(queue: Queue) -> None:
    incarnation = queue.worker()
    number, attempt = queue.running(incarnation, time_limit="10s")
    over = Ending(Outcome.FAILED, failure=Failure("time_limit", "10 s"), ran_seconds=10.0)
    queue.finish(attempt, incarnation, over)
    in_a_transaction(queue, lambda s, n: retry(s, n, actor="ada"), number)
    (outgoing,) = queue.dispatch()
    assert queue.claim(outgoing.attempt_id, incarnation).time_left_seconds == 10.0
    queue.finish(outgoing.attempt_id, incarnation, Ending(Outcome.PREEMPTED, ran_seconds=4.0))
    (outgoing,) = queue.dispatch()
    assert queue.claim(outgoing.attempt_id, incarnation).time_left_seconds == 6.0


def checkpoint(queue: Queue, attempt: UUID, incarnation: UUID, step: int, accuracy: float) -> int:
    stored = store(queue.factory, 1, [f"{attempt} {step}".encode()])
    with queue.factory() as session:
        made = add_checkpoint(
            session, attempt, incarnation, step=step, epoch=1, sha256=stored.sha256, size=stored.size,
            blob_id=stored.blob_id, metrics={"validation_accuracy": accuracy},
        )  # fmt: skip
        session.commit()
        return made


def test_from_scratch_never_goes_back_to_the_run_that_was_left(queue: Queue) -> None:
    incarnation = queue.worker()
    number, attempt = queue.running(incarnation, checkpoint={"keep_latest": 3, "keep_best": 2})
    checkpoint(queue, attempt, incarnation, 90, 0.9)
    queue.finish(attempt, incarnation, FAILED)
    in_a_transaction(queue, lambda s, n: retry(s, n, actor="ada", origin="scratch"), number)
    (outgoing,) = queue.dispatch()
    assert queue.claim(outgoing.attempt_id, incarnation).checkpoint is None
    new = checkpoint(queue, outgoing.attempt_id, incarnation, 10, 0.5)
    with queue.factory() as session:
        assert best_checkpoints(session, number, 5) == [new]
        assert report_damaged(session, outgoing.attempt_id, incarnation, new, "flipped") is None


def test_what_comes_twice_is_stored_once(queue: Queue) -> None:
    incarnation = queue.worker()
    _, attempt = queue.running(incarnation)
    batch = Batch(number=1, metrics={"loss": ([1, 2], [0.5, 0.25])}, log="hello")
    for _ in range(2):
        with queue.factory() as session:
            write_batch(session, attempt, incarnation, batch)
            session.commit()
    assert checkpoint(queue, attempt, incarnation, 2, 0.1) == checkpoint(queue, attempt, incarnation, 2, 0.1)
    with queue.factory() as session:
        counts = [
            session.scalar(text(f"SELECT count(*) FROM {t}")) for t in ("metric_segments", "log_chunks", "checkpoints")
        ]
    assert counts == [1, 1, 1]


def test_renewals_and_the_sweep_of_a_worker_wait_for_each_other_in_one_order(queue: Queue) -> None:
    """Renewals come late, again and again, while the sweep is closing the worker: nobody is caught in a deadlock."""
    incarnation = queue.worker(cpus=16)
    for _ in range(8):
        queue.running(incarnation)

    def late(_: int) -> None:
        with queue.factory() as session:
            renew(session, incarnation, -PAST.total_seconds())  # renewed, and run out again at once
            session.commit()

    with ThreadPoolExecutor(2) as pool:
        renewals = [pool.submit(late, turn) for turn in range(20)]
        contact = Contact(lease_seconds=0.0)
        while not all(renewal.done() for renewal in renewals):
            sweep(queue.factory, contact, Settings())
        for renewal in renewals:
            renewal.result()


def test_only_what_nobody_refers_to_is_collected(queue: Queue) -> None:
    incarnation = queue.worker()
    _, attempt = queue.running(incarnation)
    checkpoint(queue, attempt, incarnation, 1, 0.1)
    for number in range(3):
        store(queue.factory, 1, [f"nobody's {number}".encode()])
    with queue.factory() as session:
        session.execute(update(Blob).values(created_at=func.now() - timedelta(hours=2)))
        session.execute(update(Chunk).values(touched_at=func.now() - timedelta(hours=2)))
        session.commit()
    store(queue.factory, 1, [b"just now"])
    collect(queue.factory)
    with queue.factory() as session:
        assert session.scalar(select(func.count()).select_from(Blob)) == 2
        assert session.scalar(select(func.count()).select_from(Chunk)) == 2
        assert session.scalar(select(func.count(Checkpoint.blob_id))) == 1
