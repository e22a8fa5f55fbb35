"""Upgrades with running jobs: older and newer code beside each other leave nothing half-understood."""

from uuid import UUID

import pytest
from sqlalchemy import select, update

from stoker.errors import AttemptClosed, OtherVersion
from stoker.jobs import submissions
from stoker.jobs.accounts import Caller
from stoker.jobs.attempts import Ending
from stoker.jobs.decisions import make_room
from stoker.jobs.dependencies import settle_left
from stoker.jobs.explaining import read_queue, why
from stoker.jobs.failures import Failure
from stoker.jobs.fleet import close_incarnation
from stoker.jobs.gauges import read_gauges
from stoker.jobs.lifecycle import Outcome, State
from stoker.jobs.models import Incarnation, Job, User
from stoker.jobs.prospects import Foresight
from stoker.jobs.protocol import PROTOCOL
from stoker.jobs.reads_fleet import list_workers
from stoker.jobs.situation import Preemption
from stoker.jobs.sweep import Contact, sweep
from stoker.settings import Settings
from tests.support.logs import logged
from tests.support.queue import GPU, Queue

OLDER, NEWER = PROTOCOL - 1, PROTOCOL + 1


def reason(queue: Queue, number: int) -> str:
    """Why a job waits: told the same where it is asked for, and in the whole queue."""
    with queue.factory() as session:
        told = why(session, session.get_one(Job, number), Foresight())
        listed = read_queue(session, caller(queue), Foresight(), 10)
        session.rollback()
    assert {item.number: item.why.code for item in listed.items}[number] == told.code
    return told.code


def caller(queue: Queue) -> Caller:
    with queue.factory() as session:
        user = session.get_one(User, queue.user_id)
    return Caller(user.id, user.name, user.team_id, "vision", "admin", 1)


def restart(queue: Queue, incarnation: UUID) -> UUID:
    """Stop the worker and start its present code."""
    with queue.factory() as session:
        close_incarnation(session, incarnation, "upgraded")
        session.commit()
    return queue.worker()


@pytest.mark.parametrize("other", [OLDER, NEWER])
def test_nothing_is_placed_on_a_worker_of_another_version_until_it_is_upgraded(queue: Queue, other: int) -> None:
    incarnation = queue.worker(protocol=other)
    number = queue.submit()
    assert queue.dispatch() == []
    assert reason(queue, number) == "other_version"
    with queue.factory() as session:
        (shown,) = list_workers(session, caller(queue), 10, None).items
        assert read_gauges(session).queue == {("vision", "other_version"): 1}
    assert (shown.state, shown.protocol) == ("other_version", other)
    restart(queue, incarnation)
    assert [outgoing.job_number for outgoing in queue.dispatch()] == [number]


def test_the_reason_names_a_worker_of_another_version_only_where_it_would_help(queue: Queue) -> None:
    queue.worker("own", cpus=2)
    queue.worker("other", cpus=2, devices=(GPU,), protocol=OLDER)
    gpu = queue.submit(resources={"device": "gpu", "memory": 10**8})
    assert queue.dispatch() == []
    assert reason(queue, gpu) == "other_version"
    with queue.factory() as session:
        told = why(session, session.get_one(Job, gpu), Foresight())
    assert told.sentence == "other could run it, but speaks another protocol than this server; upgrade it"
    first, second = (queue.submit(resources={"cpus": 2, "memory": 10**8}) for _ in range(2))
    assert [outgoing.job_number for outgoing in queue.dispatch()] == [first]
    assert reason(queue, second) == "other_version", "it has room for it now"


def test_a_job_that_runs_on_an_older_worker_goes_on_to_its_end(queue: Queue) -> None:
    incarnation = queue.worker()
    number, attempt = queue.running(incarnation)
    with queue.factory() as session:  # what the API is upgraded past
        session.execute(update(Incarnation).values(protocol=OLDER))
        session.execute(update(Job).values(protocol=OLDER))
        session.commit()
    assert queue.finish(attempt, incarnation) == State.SUCCEEDED
    waiting = queue.submit()
    assert queue.dispatch() == []
    assert queue.job(waiting).protocol == PROTOCOL
    assert queue.job(number).state == State.SUCCEEDED


def test_older_code_moves_no_job_that_newer_code_accepted(queue: Queue) -> None:
    incarnation = queue.worker()
    running, attempt = queue.running(incarnation)
    (placed,) = (queue.submit(), queue.dispatch())[1]
    queued = queue.submit()
    with queue.factory() as session:
        session.execute(update(Job).values(protocol=NEWER))
        session.commit()
    assert queue.dispatch() == [], "it is not placed"
    with pytest.raises(AttemptClosed):
        queue.claim(placed.attempt_id, incarnation)
    for number in (placed.job_number, queued):
        with queue.factory() as session, pytest.raises(OtherVersion, match="a newer Stoker accepted it"):
            submissions.cancel(session, number, actor="ada")
    queue.expire(attempt)
    contact = Contact(0.0)
    with logged() as log:
        for _ in range(2):  # the first look allows the second to take something back
            sweep(queue.factory, contact, Settings())
    (line,) = [line for line in log.lines() if line["event"] == "sweep_step_failed"][:1]
    assert (line["job"], line["attempt"]) == (running, str(attempt))
    assert "OtherVersion" in line["traceback"]
    states = [queue.job(number).state for number in (running, placed.job_number, queued)]
    assert states == [State.RUNNING, State.PLACED, State.QUEUED], "the upgraded processes will move them"


def accept_by_newer(queue: Queue, *numbers: int) -> None:
    """Make these jobs ones that newer code accepted."""
    with queue.factory() as session:
        session.execute(update(Job).where(Job.number.in_(numbers)).values(protocol=NEWER))
        session.commit()


def test_a_job_that_a_newer_one_waits_for_succeeds_and_lets_it_start(queue: Queue) -> None:
    incarnation = queue.worker()
    parent, attempt = queue.running(incarnation)
    child = queue.submit(after=[parent])
    accept_by_newer(queue, child)
    assert queue.finish(attempt, incarnation) == State.SUCCEEDED
    assert [queue.job(number).state for number in (parent, child)] == [State.SUCCEEDED, State.QUEUED]
    assert queue.dispatch() == [], "that is for newer code"


def test_a_job_that_a_newer_one_waits_for_fails_and_newer_code_cancels_that(queue: Queue) -> None:
    incarnation = queue.worker()
    parent, attempt = queue.running(incarnation)
    newer, own = queue.submit(after=[parent]), queue.submit(after=[parent])
    last = queue.submit(after=[newer])
    accept_by_newer(queue, newer)
    failed = Ending(Outcome.FAILED, "user_error", failure=Failure("user_error", "it raised"))
    assert queue.finish(attempt, incarnation, failed) == State.FAILED
    settle_left(queue.factory)
    assert [queue.job(number).state for number in (newer, own, last)] == [
        State.WAITING, State.CANCELLED, State.WAITING,
    ]  # fmt: skip
    with queue.factory() as session:  # the newer code: one for which this is its own version
        session.execute(update(Job).where(Job.number == newer).values(protocol=PROTOCOL))
        session.commit()
    settle_left(queue.factory)
    assert [queue.job(number).state for number in (newer, last)] == [State.CANCELLED, State.CANCELLED]


def test_older_code_plans_nothing_where_newer_code_does(queue: Queue) -> None:
    queue.worker("own", cpus=1)
    newer, own = queue.submit(), queue.submit()
    accept_by_newer(queue, newer)
    assert queue.dispatch() == [], "it would plan for the newer job"
    with queue.factory() as session:
        session.execute(update(Job).where(Job.number == newer).values(held=True))
        session.commit()
    incarnation = queue.worker("other", cpus=1, protocol=NEWER)
    assert queue.dispatch() == [], "the newer worker dispatches"
    with queue.factory() as session:
        close_incarnation(session, incarnation, "gone")
        session.commit()
    assert [outgoing.job_number for outgoing in queue.dispatch()] == [own]


def test_nobody_makes_room_for_a_job_that_only_newer_code_may_place(queue: Queue) -> None:
    incarnation = queue.worker()
    running, _ = queue.running(incarnation)
    own, newer = queue.submit(), queue.submit()
    accept_by_newer(queue, newer)
    for beneficiary, refused in ((newer, {newer}), (own, set[int]())):
        with queue.factory() as session:
            assert make_room(session, [Preemption(running, beneficiary, "it is needed")]) == refused
            session.rollback()


def test_a_start_of_a_worker_says_which_version_it_speaks(queue: Queue) -> None:
    queue.worker()
    with queue.factory() as session:
        assert session.scalar(select(Incarnation.protocol)) == PROTOCOL
