"""Notifications in a test's queue: a job that ended and whom it told."""

from sqlalchemy import func, select, update

from stoker.jobs.attempts import Ending
from stoker.jobs.deliveries import Notice, Receipt, note, take
from stoker.jobs.models import Event, Notification
from stoker.jobs.vault import Vault
from tests.support.queue import Queue

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
