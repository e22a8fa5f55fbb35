"""Notifications: written with the end of a job, taken by one process at a time, tried until they arrive."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import func, select, update

from stoker.jobs import submissions
from stoker.jobs.attempts import Ending
from stoker.jobs.courier import Courier
from stoker.jobs.deliveries import MOST_TRIES, OF_ONE_OWNER, Notice, Receipt, note, take
from stoker.jobs.failures import Failure
from stoker.jobs.lifecycle import Outcome, State
from stoker.jobs.models import Event, Notification, Secret, User
from stoker.jobs.steering import retry
from stoker.jobs.vault import Vault
from stoker.messages.carrier import Carrier
from stoker.messages.webhook import signature
from stoker.settings import Settings
from tests.support.queue import Queue
from tests.support.receivers import Hook, MailServer, hook, mail_server
from tests.support.waiting import wait_for

TO = "https://hooks.lab/services/SECRET"
NO_VAULT = Vault(None)


def rows(queue: Queue) -> list[Notification]:
    with queue.factory() as session:
        return list(session.scalars(select(Notification).order_by(Notification.id)))


def reasons(queue: Queue, number: int, name: str) -> list[str]:
    with queue.factory() as session:
        found = select(Event.reason).where(Event.job_number == number, Event.name == name).order_by(Event.id)
        return list(session.scalars(found))


def taken(queue: Queue, vault: Vault = NO_VAULT) -> list[Notice]:
    with queue.factory() as session:
        notices = take(session, vault)
        session.commit()
    return notices


def settle(queue: Queue, receipt: Receipt) -> None:
    with queue.factory() as session:
        note(session, receipt)
        session.commit()


def come_due(queue: Queue) -> None:
    with queue.factory() as session:
        session.execute(update(Notification).values(due_at=func.now()))
        session.commit()


def ended(queue: Queue, *recipients: str, ending: Ending | None = None) -> int:
    """A job that ran to its end."""
    incarnation = queue.worker()
    number, attempt = queue.running(incarnation, notify=list(recipients))
    queue.finish(attempt, incarnation, ending)
    return number


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


@pytest.mark.parametrize("tries", [0, MOST_TRIES])
def test_a_recipient_that_older_code_took_for_one_holds_up_nobody(
    queue: Queue, receiver: Hook, settings: Settings, tries: int
) -> None:
    incarnation = queue.worker()
    number, first = queue.running(incarnation, notify=[TO])
    other, second = queue.running(incarnation, notify=[f"http://{receiver.authority}/"])
    for attempt in (first, second):
        queue.finish(attempt, incarnation)
    with queue.factory() as session:
        old = update(Notification).where(Notification.job_number == number)
        session.execute(old.values(recipient="ftp://old.lab", tries=tries))
        session.commit()
    for notice in taken(queue):
        settle(queue, Carrier.of(settings).carry(notice))
    (told,) = reasons(queue, number, "notification_failed")
    assert told.startswith("the notification to a recipient that is none failed: ")
    assert reasons(queue, other, "notified")


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


@pytest.fixture
def receiver() -> Iterator[Hook]:
    with hook() as server:
        yield server


@pytest.fixture
def mails() -> Iterator[MailServer]:
    with mail_server() as server:
        yield server


Deliver = Callable[..., None]


@pytest.fixture
def settings(receiver: Hook, mails: MailServer) -> Settings:
    return Settings(
        notify_allow=f"{receiver.authority} @lab.org",
        smtp_url=f"smtp+plain://127.0.0.1:{mails.port}",
        smtp_from="stoker@lab.org",
        public_url="https://stoker.lab/",
    )


def delivered(queue: Queue, settings: Settings, vault: Vault = NO_VAULT) -> None:
    """Let a courier work until nothing is due."""
    courier = Courier(queue.engine, Carrier.of(settings).carry, vault, 0.01)
    courier.start()
    try:
        wait_for(lambda: all(row.tries and (row.sent_at or row.problem) for row in rows(queue)), 20, "every try")
    finally:
        courier.stop()


def cancelled(queue: Queue, server: Hook) -> int:
    """A job whose end is to be told at a receiver, and has come."""
    number = queue.submit(notify=[f"http://{server.authority}/"])
    with queue.factory() as session:
        submissions.cancel(session, number, actor="ada")
        session.commit()
    return number


def test_the_silent_receivers_of_one_owner_make_nobody_else_wait(
    queue: Queue, receiver: Hook, settings: Settings
) -> None:
    with hook() as silent:
        silent.silent = True
        for _ in range(2 * OF_ONE_OWNER):
            cancelled(queue, silent)
        queue.join("nlp")
        settings = replace(settings, notify_allow=f"{receiver.authority} {silent.authority}")
        courier = Courier(queue.engine, Carrier.of(settings).carry, NO_VAULT, 0.01)
        courier.start()
        try:
            wait_for(lambda: len(silent.received) == OF_ONE_OWNER, 20, "the silent ones to be asked")
            for _ in range(3):
                number = cancelled(queue, receiver)
                wait_for(partial(reasons, queue, number, "notified"), 20, "the other owner to be told")
            assert len(silent.received) == OF_ONE_OWNER
            assert [row.problem for row in rows(queue)] == [None] * len(rows(queue)), "they still make us wait"
        finally:
            courier.stop()


def test_a_webhook_is_told_who_what_and_where(queue: Queue, receiver: Hook, settings: Settings) -> None:
    number = ended(queue, f"http://{receiver.authority}/x")
    delivered(queue, replace(settings, notify_key="of the administrator"))
    (request,) = receiver.received
    told = json.loads(request.body)
    assert told["text"].splitlines() == [
        f"Job {number} succeeded: digits-tutorial-cnn (ada, team vision)",
        "accuracy 50.0 %",
        f"https://stoker.lab/api/v1/jobs/{number}",
    ]
    assert (told["job"], told["state"], told["accuracy"]) == (number, "succeeded", 0.5)
    assert told["link"] == f"https://stoker.lab/api/v1/jobs/{number}"
    assert request.headers["Stoker-Delivery"] == str(told["delivery"])
    seconds = int(request.headers["Stoker-Signature"].split(",")[0].removeprefix("t="))
    assert request.headers["Stoker-Signature"] == signature("of the administrator", request.body, seconds)
    assert reasons(queue, number, "notified") == [f"http://{receiver.authority} was told"]


def test_a_team_signs_with_its_own_key(queue: Queue, receiver: Hook, settings: Settings) -> None:
    vault = Vault(Fernet.generate_key().decode())
    ended(queue, f"http://{receiver.authority}/x")
    with queue.factory() as session:
        user = session.get_one(User, queue.user_id)
        sealed = vault.seal(user.team_id, "NOTIFY_KEY", "of the team")
        session.add(Secret(team_id=user.team_id, name="NOTIFY_KEY", ciphertext=sealed, created_by=user.id))
        session.commit()
    delivered(queue, replace(settings, notify_key="of the administrator"))  # this server has lost its key
    assert receiver.received == []
    assert "cannot be opened" in str(rows(queue)[0].problem), "better late than unsigned"
    come_due(queue)
    with queue.factory() as session:
        session.execute(update(Notification).values(problem=None))
        session.commit()
    delivered(queue, replace(settings, notify_key="of the administrator"), vault)
    (request,) = receiver.received
    seconds = int(request.headers["Stoker-Signature"].split(",")[0].removeprefix("t="))
    assert request.headers["Stoker-Signature"] == signature("of the team", request.body, seconds)


def test_a_mail_is_handed_in(queue: Queue, mails: MailServer, settings: Settings) -> None:
    failure = Failure("user_error", "ValueError: no", "")
    number = ended(queue, "ada@lab.org", ending=Ending(Outcome.FAILED, failure=failure))
    delivered(queue, settings)
    (mail,) = mails.mails.kept
    assert (mail.sender, mail.recipients) == ("stoker@lab.org", ["ada@lab.org"])
    text = mail.data.decode()
    assert f"Subject: Job {number} failed: digits-tutorial-cnn (ada, team vision)\r\n" in text
    assert f"Message-ID: <stoker-{rows(queue)[0].id}@lab.org>\r\n" in text
    assert "failure: user_error\r\n" in text
    assert reasons(queue, number, "notified") == ["ada@lab.org was told"]


def test_no_name_makes_a_header(queue: Queue, mails: MailServer, settings: Settings) -> None:
    incarnation = queue.worker()
    name = "Ünïcode: x, Bcc: eve@lab.org <b> =?utf-8?q?=0ABcc:eve?="
    _, attempt = queue.running(incarnation, notify=["ada@lab.org"], name=name)
    queue.finish(attempt, incarnation)
    delivered(queue, settings)
    (mail,) = mails.mails.kept
    assert mail.recipients == ["ada@lab.org"]
    head = mail.data.decode().partition("\r\n\r\n")[0]
    names = [line.partition(":")[0] for line in head.split("\r\n") if not line.startswith((" ", "\t"))]
    known = {"From", "To", "Subject", "Message-ID", "Auto-Submitted", "MIME-Version"}
    assert set(names) <= known | {"Content-Type", "Content-Transfer-Encoding"}


def test_an_address_that_is_refused_is_not_tried_again(queue: Queue, mails: MailServer, settings: Settings) -> None:
    mails.mails.refusal = "550 no such user; the relay is 10.0.0.7"
    number = ended(queue, "ada@lab.org")
    delivered(queue, settings)
    (reason,) = reasons(queue, number, "notification_failed")
    assert reason.endswith("failed: the mail server refuses the address (550); it is not tried again")


def test_no_mail_leaves_without_tls_where_tls_was_asked_for(
    queue: Queue, mails: MailServer, settings: Settings
) -> None:
    number = ended(queue, "ada@lab.org")
    delivered(queue, replace(settings, smtp_url=f"smtp://stoker:password@127.0.0.1:{mails.port}"))
    assert mails.mails.kept == []
    (reason,) = reasons(queue, number, "notification_failed")
    assert "the mail server did not take it; it is tried again" in reason


def test_what_is_no_longer_allowed_is_not_sent(queue: Queue, receiver: Hook, settings: Settings) -> None:
    number = ended(queue, f"http://{receiver.authority}/x", "ada@lab.org")
    delivered(queue, replace(settings, notify_allow=None))
    assert receiver.received == []
    hooked, mailed = reasons(queue, number, "notification_failed")
    assert "is not allowed here; it is not tried again" in hooked + mailed
    assert "neither your registered address nor of a listed domain; it is not tried again" in hooked + mailed
