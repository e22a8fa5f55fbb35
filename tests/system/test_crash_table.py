"""What the database holds after a dispatcher died or froze at each point of its way, and who notices."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, select

from stoker.api.app import create_app
from stoker.jobs import accounts
from stoker.jobs.attempts import Outgoing
from stoker.jobs.database import connect
from stoker.jobs.dispatcher import Dispatcher
from stoker.jobs.models import Job, User
from stoker.jobs.sweep import Contact
from stoker.settings import Settings
from tests.support.dispatching import BEFORE_COMMIT, BEFORE_SEND
from tests.support.queue import Queue, spec_document
from tests.support.waiting import wait_for

JOBS = "http://api/api/v1/jobs"
QUICK = Settings(resend_seconds=0.5, claim_seconds=1.5, dispatch_seconds=0.2, lease_seconds=2)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = connect(database_url)
    yield made
    made.dispose()


@pytest.fixture
def queue(engine: Engine) -> Queue:
    return Queue(engine)


@contextmanager
def dispatcher_stopped_at(stage: str, url: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that dispatches, and has come as far as ``stage``."""
    command = [sys.executable, "-m", "tests.support.dispatching", url, stage]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "reached\n"
            yield process
        finally:
            process.kill()


@contextmanager
def dispatching(engine: Engine) -> Iterator[list[Outgoing]]:
    """A dispatcher in this process; what it sends."""
    sent: list[Outgoing] = []
    dispatcher = Dispatcher(engine, sent.append, QUICK)
    dispatcher.start()
    try:
        yield sent
    finally:
        dispatcher.stop()


def numbers(queue: Queue) -> list[int]:
    """The numbers of all jobs."""
    with queue.factory() as session:
        return list(session.scalars(select(Job.number)))


def test_killed_between_commit_and_answer_an_api_has_accepted_the_job_once(
    queue: Queue, engine: Engine, database_url: str, home: Path
) -> None:
    with queue.factory() as session:
        token = accounts.add_token(session, session.get_one(User, queue.user_id), "test")
        session.commit()
    headers, body = {"Authorization": f"Bearer {token}", "Idempotency-Key": "once"}, spec_document()
    command = [sys.executable, "-m", "tests.support.answering", database_url, str(home), str(home / "api.sock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process, ThreadPoolExecutor(1) as client:
        wait_for((home / "api.sock").exists, 60, "the API")
        transport = httpx.HTTPTransport(uds=str(home / "api.sock"))
        asked = client.submit(httpx.Client(transport=transport).post, JOBS, json=body, headers=headers, timeout=60)
        assert process.stdout is not None
        assert process.stdout.readline() == "reached\n"
        process.kill()
        assert isinstance(asked.exception(60), httpx.TransportError)  # the client cannot know
    (accepted,) = numbers(queue)
    with TestClient(create_app(Settings(database_url=database_url, home=home)), headers=headers) as other:
        again = other.post(JOBS, json=body)
    assert (again.status_code, again.json()["number"]) == (200, accepted)
    queue.worker()
    with dispatching(engine) as sent:
        wait_for(lambda: sent, 30, "its message")
    assert numbers(queue) == [accepted]


def test_killed_before_its_commit_a_dispatcher_leaves_the_job_queued(
    queue: Queue, engine: Engine, database_url: str
) -> None:
    queue.worker()
    number = queue.submit()
    with dispatcher_stopped_at(BEFORE_COMMIT, database_url) as process:
        assert queue.job(number).state == "queued"
        process.kill()
        process.wait()
        with dispatching(engine) as sent:
            wait_for(lambda: sent, 30, "the other dispatcher's message")
    assert [outgoing.ordinal for outgoing in sent][:1] == [1]
    assert len(queue.attempts(number)) == 1


def test_killed_between_commit_and_send_its_message_is_sent_by_another(
    queue: Queue, engine: Engine, database_url: str
) -> None:
    incarnation = queue.worker()
    number = queue.submit()
    with dispatcher_stopped_at(BEFORE_SEND, database_url) as process:
        process.kill()
        process.wait()
        (placed,) = queue.attempts(number)
        assert (placed.state, placed.first_sent_at) == ("placed", None)
        with dispatching(engine) as sent:
            wait_for(lambda: sent, 30, "the message, sent by another process")
    assert sent[0].attempt_id == placed.id
    assert queue.claim(placed.id, incarnation).ordinal == 1


def test_a_message_that_was_taken_and_never_claimed_gives_the_job_back(queue: Queue, engine: Engine) -> None:
    queue.worker()
    number = queue.submit()
    with dispatching(engine) as sent:
        wait_for(lambda: queue.job(number).state == "queued" and sent, 30, "the job to be queued again")
    first: set[UUID] = {outgoing.attempt_id for outgoing in sent}
    assert len(first) == 1  # sent again under the same task id, never replaced
    assert len(sent) >= 2
    assert [attempt.outcome for attempt in queue.attempts(number)] == ["not_claimed"]


def test_a_frozen_holder_of_the_dispatch_lock_stops_nobody_for_long(
    queue: Queue, engine: Engine, database_url: str
) -> None:
    queue.worker()
    number = queue.submit()
    with dispatcher_stopped_at(BEFORE_COMMIT, database_url) as process:
        os.kill(process.pid, signal.SIGSTOP)
        with dispatching(engine) as sent:
            wait_for(lambda: sent, 20, "a dispatch by another while the holder is frozen")
    assert sent[0].job_number == number
    assert len(queue.attempts(number)) == 1


def test_a_worker_that_dies_between_claim_and_start_loses_the_job_to_the_sweep(queue: Queue, engine: Engine) -> None:
    incarnation = queue.worker(lease_seconds=1.0)
    number, attempt = queue.running(incarnation, lease_seconds=1.0)
    with dispatching(engine):
        wait_for(lambda: queue.job(number).state == "queued", 20, "the sweep")
    (lost,) = queue.attempts(number)
    assert (lost.id, lost.outcome) == (attempt, "lost")
    assert lost.failure is not None
    assert lost.failure["class"] == "worker_lost"


def test_an_outage_of_the_sweeper_itself_takes_nobodys_lease(queue: Queue) -> None:
    """One whole lease of unbroken contact comes before the first sweep, and after every gap or jump of a clock."""
    contact = Contact(lease_seconds=10)
    assert [contact.seen(1000.0 + t, 50.0 + t) for t in (0, 4, 8, 11)] == [False, False, False, True]
    contact.lost()
    assert not contact.seen(1012.0, 62.0)
    assert [contact.seen(1000.0 + t, 50.0 + t) for t in (17, 22)] == [False, True]
    assert not contact.seen(1000.0 + 3600, 73.0)  # the database's clock jumped
    assert not contact.seen(1000.0 + 3605, 78.0)
    assert not contact.seen(1000.0 + 3620, 93.0)  # 15 s without a look
    assert contact.seen(1000.0 + 3630, 103.0)
