"""Notifications: written with the end of a job, taken by one process at a time, tried until they arrive."""

from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import func, select

from stoker.jobs import submissions
from stoker.jobs.attempts import Ending
from stoker.jobs.deliveries import MOST_TRIES, OF_ONE_OWNER, Receipt
from stoker.jobs.failures import Failure
from stoker.jobs.lifecycle import Outcome, State
from stoker.jobs.models import Notification
from stoker.jobs.steering import retry
from tests.support.notices import TO, come_due, ended, reasons, rows, settle, taken
from tests.support.queue import Queue


def test_an_end_leaves_one_row_for_each_recipient(queue: Queue) -> None:
    number = ended(queue, TO, "ada@lab.org")
    first, second = rows(queue)
    assert (first.recipient, second.recipient) == (TO, "ada@lab.org")
    told = first.document
    assert (told["job"], told["state"], told["owner"], told["team"]) == (number, "succeeded", "ada", "vision")
    assert (told["accuracy"], told["failure"], told["name"]) == (0.5, None, "digits-tutorial-cnn")
    assert told["finished_at"]


def test_every_kind_of_end_is_told_and_no_other_move(queue: Queue) -> None:
    failure = Failure("user_error", "ValueError: no", "")
    failed = ended(queue, TO, ending=Ending(Outcome.FAILED, failure=failure))
    parent = queue.submit(notify=[TO])
    child = queue.submit(notify=[TO], after=[parent])
    with queue.factory() as session:
        submissions.cancel(session, parent, actor="ada")
        session.commit()
    told = [(row.job_number, row.document["state"], row.document["failure"]) for row in rows(queue)]
    assert told == [
        (failed, "failed", "user_error"),
        (parent, "cancelled", None),
        (child, "cancelled", None),
    ]
    with queue.factory() as session:
        retry(session, failed, actor="ada")
        session.commit()
    assert queue.job(failed).state == State.QUEUED
    assert len(rows(queue)) == 3
    assert rows(queue)[0].document["state"] == "failed", "what is told is the end that was, whatever came later"


def test_an_end_that_is_not_committed_tells_nobody(queue: Queue) -> None:
    number = queue.submit(notify=[TO])
    with queue.factory() as session:
        submissions.cancel(session, number, actor="ada")
        assert session.scalar(select(func.count()).select_from(Notification)) == 1
        session.rollback()
    assert rows(queue) == []


def test_what_is_taken_is_taken_once_and_comes_back_when_its_taker_died(queue: Queue) -> None:
    ended(queue, TO)
    with ThreadPoolExecutor(4) as pool:
        found = [notice for notices in pool.map(lambda _: taken(queue), range(4)) for notice in notices]
    assert len(found) == 1
    come_due(queue)  # nobody noted what became of it
    (again,) = taken(queue)
    assert again.id == found[0].id
    settle(queue, Receipt(again))
    come_due(queue)
    assert taken(queue) == []


def test_a_last_try_whose_process_died_is_given_up(queue: Queue) -> None:
    number = ended(queue, TO)
    for _ in range(MOST_TRIES):
        come_due(queue)
        assert len(taken(queue)) == 1
    come_due(queue)
    assert taken(queue) == []
    (row,) = rows(queue)
    assert row.failed_at is not None
    (reason,) = reasons(queue, number, "notification_failed")
    assert reason.endswith("failed: the server ended during the last try; it is not tried again")


def test_tries_are_bounded_further_apart_each_time_and_told_without_the_secret_path(queue: Queue) -> None:
    number = ended(queue, TO)
    pauses = []
    for _ in range(MOST_TRIES):
        come_due(queue)
        (notice,) = taken(queue)
        with queue.factory() as session:
            left = func.extract("epoch", Notification.due_at - func.now())
            pauses.append(float(session.scalars(select(left)).one()))
        settle(queue, Receipt(notice, "it answered 500"))
    assert pauses[: MOST_TRIES - 1] == sorted(pauses[: MOST_TRIES - 1])
    assert pauses[0] > 50
    come_due(queue)
    assert taken(queue) == []
    told = reasons(queue, number, "notification_failed")
    failed = "the notification to https://hooks.lab failed: it answered 500; it is"
    assert told[0] == f"{failed} tried again, at most {MOST_TRIES - 1} times"
    assert told[-1] == f"{failed} not tried again"
    assert len(told) == MOST_TRIES
    assert "SECRET" not in "".join(told)


def test_one_owner_does_not_keep_others_from_being_told(queue: Queue) -> None:
    for owner in ("ada", "nlp"):
        if owner == "nlp":
            queue.join("nlp")
        for _ in range(2 * OF_ONE_OWNER if owner == "ada" else 1):
            other = queue.submit(notify=[TO])
            with queue.factory() as session:
                submissions.cancel(session, other, actor=owner)
                session.commit()
    first = [notice.job_number for notice in taken(queue)]
    assert len(first) == OF_ONE_OWNER + 1
    assert other in first
