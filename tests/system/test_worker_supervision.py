"""A worker that is hit where nobody looks after an attempt any more: none stays running for ever."""

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import exc, text, update
from sqlalchemy.orm import Session

from stoker.errors import DataDamaged
from stoker.jobs import attempts, blobs
from stoker.jobs.lifecycle import AttemptState, Outcome, State
from stoker.jobs.models import Job, LogChunk
from stoker.jobs.protocol import PROTOCOL
from stoker.workers import lease, runner
from stoker.workers.runs import Asked, Interrupted
from tests.support.logs import logged
from tests.support.waiting import wait_for
from tests.support.worker_parts import Parts, parts_of_a_worker


@pytest.fixture
def parts(database_url: str, home: Path) -> Iterator[Parts]:
    """A worker's parts, registered."""
    with parts_of_a_worker(database_url, home) as made:
        yield made


def test_an_attempt_that_nobody_looks_after_is_ended_as_lost_and_runs_again(parts: Parts) -> None:
    attempt = parts.claim().id  # committed; the answer never came
    keeper = parts.keeper()
    with parts.runs.claiming(attempt):  # it may still come
        assert [keeper.renew() for _ in range(3)] == [True] * 3
    assert parts.queue.job(parts.number).state == State.RUNNING
    assert [keeper.renew() for _ in range(2)] == [True] * 2
    (ended,) = parts.queue.attempts(parts.number)
    assert (ended.outcome, parts.queue.job(parts.number).state) == (Outcome.LOST, State.QUEUED)
    assert ended.failure is not None
    assert ended.failure["class"] == "worker_lost"


def test_an_attempt_that_cannot_be_ended_does_not_end_the_worker(parts: Parts) -> None:
    parts.claim()
    with parts.queue.factory() as session:  # newer code has taken the job for its own
        session.execute(update(Job).values(protocol=PROTOCOL + 1))
        session.commit()
    keeper = parts.keeper()
    with logged() as log:
        assert [keeper.renew() for _ in range(2)] == [True] * 2
    assert "attempt_not_ended" in {line["event"] for line in log.lines()}
    assert parts.queue.job(parts.number).state == State.RUNNING


def test_an_attempt_that_runs_here_is_never_taken_for_lost(parts: Parts) -> None:
    run = parts.claim()
    keeper = parts.keeper()
    with parts.runs.holding(run):
        assert [keeper.renew() for _ in range(4)] == [True] * 4
    assert parts.queue.job(parts.number).state == State.RUNNING


def test_a_disk_without_room_for_the_folder_ends_the_attempt_free_of_charge(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runner, "make_scratch", full)
    ended = parts.runner().run(parts.placed())
    assert (ended.state, ended.failure and ended.failure.klass) == (State.QUEUED, "disk_full")


def test_an_ending_that_the_database_refuses_becomes_one_that_it_takes(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, tried = attempts.finish, []

    def refused_once(session: Session, *rest: Any) -> State:
        tried.append(rest)
        if len(tried) == 1:
            session.execute(text("SELECT 1 / 0"))  # nothing that passes
        return finish(session, *rest)

    monkeypatch.setattr(attempts, "finish", refused_once)
    monkeypatch.setattr(runner, "make_scratch", lambda *_: parts.home / "missing")
    ended = parts.runner().run(parts.placed())
    assert (ended.outcome, ended.state, len(tried)) == (Outcome.LOST, State.QUEUED, 2)


def test_a_report_that_the_database_refuses_is_dropped_with_a_note(parts: Parts) -> None:
    run = parts.claim()
    report = parts.report(run)
    report.log("half a character: \ud800")
    parts.runner()._report_rest(run, report)
    assert "note" in parts.queue.events(parts.number)
    assert parts.count(LogChunk) == 0


def test_a_run_that_cannot_be_ended_is_ended_by_the_keeper(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> State:
        raise exc.OperationalError("COMMIT", {}, Exception("the database is away"))

    monkeypatch.setattr(attempts, "finish", never)
    parts.runs.stop(patience_seconds=0.0)
    assert parts.runner().run(parts.placed()).outcome is None  # and it came back at all
    assert parts.queue.attempts(parts.number)[0].state == AttemptState.RUNNING
    keeper = parts.keeper()
    assert [keeper.renew() for _ in range(2)] == [True] * 2
    assert parts.queue.attempts(parts.number)[0].outcome == Outcome.LOST


def test_a_hiccup_of_the_database_does_not_end_a_preparation(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    run = parts.claim()
    team = run.claimed.team_id
    stored = blobs.store(parts.queue.factory, team, [b"a" * 100])
    read, tried = blobs.read, []

    def away_once(*args: Any) -> Iterator[bytes]:
        tried.append(args)
        if len(tried) == 1:
            raise exc.OperationalError("SELECT", {}, Exception("server closed the connection unexpectedly"))
        return read(*args)

    monkeypatch.setattr(blobs, "read", away_once)
    preparation = parts.runner().kinds.preparation
    preparation._fetch(parts.home / "data", stored.blob_id, stored.sha256.hex(), run)
    assert (parts.home / "data").read_bytes() == b"a" * 100
    with pytest.raises(DataDamaged):
        preparation._fetch(parts.home / "other", stored.blob_id, "0" * 64, run)
    run.ask(Asked.CANCEL)
    tried.clear()
    with pytest.raises(Interrupted):  # and not the error of the database
        preparation._fetch(parts.home / "data", stored.blob_id, stored.sha256.hex(), run)


def test_a_trainer_is_not_waited_for_when_its_run_is_cancelled_before_the_fork_server_is_ready(parts: Parts) -> None:
    attempt = parts.placed()
    ended: list[runner.Ended] = []
    running = threading.Thread(target=lambda: ended.append(parts.runner().run(attempt)))
    running.start()
    (run,) = wait_for(parts.runs.all, 30, "the claim")
    run.ask(Asked.CANCEL)
    running.join(30)
    assert [one.outcome for one in ended] == [Outcome.CANCELLED]


def test_a_worker_whose_leases_nobody_renews_any_more_does_not_live_on(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    exits: list[int] = []
    monkeypatch.setattr(os, "_exit", exits.append)

    def broken(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(lease, "renew", broken)
    keeper = parts.keeper()
    keeper.start()
    wait_for(lambda: exits, 30, "the end of the process")
    assert exits == [1]


def test_a_health_file_that_cannot_be_written_costs_no_lease(parts: Parts) -> None:
    (parts.home / "health").symlink_to(parts.home / "no such folder" / "health")
    assert parts.keeper().renew()


def test_requests_are_heard_beyond_the_thousandth_descriptor(parts: Parts) -> None:
    spare = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        keeper = parts.keeper()
        keeper._listener.wake()
        keeper._listener.wait(60.0)  # returns at once, and raises nothing
    finally:
        for descriptor in spare:
            os.close(descriptor)
