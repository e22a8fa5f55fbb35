"""Notifications carried to real receivers: webhooks and mail."""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import update

from stoker.jobs import submissions
from stoker.jobs.attempts import Ending
from stoker.jobs.courier import Courier
from stoker.jobs.deliveries import MOST_TRIES, OF_ONE_OWNER
from stoker.jobs.failures import Failure
from stoker.jobs.lifecycle import Outcome
from stoker.jobs.models import Notification, Secret, User
from stoker.jobs.vault import Vault
from stoker.messages.carrier import Carrier
from stoker.messages.webhook import signature
from stoker.settings import Settings
from tests.support.notices import NO_VAULT, TO, come_due, ended, reasons, rows, settle, taken
from tests.support.queue import Queue
from tests.support.receivers import Hook, MailServer, hook, mail_server
from tests.support.waiting import wait_for


@pytest.fixture
def receiver() -> Iterator[Hook]:
    with hook() as server:
        yield server


@pytest.fixture
def mails() -> Iterator[MailServer]:
    with mail_server() as server:
        yield server


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
        carrier = Carrier.of(settings)
        patient = replace(
            carrier, poster=replace(carrier.poster, most_seconds=600.0)
        )  # none ends before we have seen it
        courier = Courier(queue.engine, patient.carry, NO_VAULT, 0.01)
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
