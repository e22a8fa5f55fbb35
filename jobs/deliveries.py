"""The way of a notification from its row to its recipient: taken, tried, noted. The caller commits."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import case, func, literal, select
from sqlalchemy.orm import Session

from stoker.errors import InvalidInput
from stoker.jobs.models import Job, Notification, Secret, User
from stoker.jobs.moves import SHOW, add_event, notify
from stoker.jobs.recipients import recipient
from stoker.jobs.vault import Vault

PAUSES_SECONDS = (60.0, 300.0, 1800.0, 7200.0, 21600.0)  # from one try to the next; each longer than any try takes
MOST_TRIES = len(PAUSES_SECONDS) + 1
AT_ONCE, OF_ONE_OWNER = 8, 2  # tried side by side by one process; so slow receivers of a user delay no one else's
SIGNING_SECRET = "NOTIFY_KEY"  # noqa: S105 - the name of the team's secret that signs its notifications


@dataclass(frozen=True, slots=True)
class Notice:
    """A notification that this process is to deliver now."""

    id: int
    job_number: int
    owner_id: int
    recipient: str
    document: dict[str, Any]
    registered: str | None  # mail address of the job's owner
    key: str | None  # with which the team signs
    key_unreadable: bool  # there is one, sealed under another STOKER_SECRET_KEY


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a try."""

    notice: Notice
    problem: str | None = None  # one sentence for the owner; None: delivered
    again: bool = True  # whether another try may help


def take(session: Session, vault: Vault, under_way: Mapping[int, int] | None = None) -> list[Notice]:
    """Take what is due. Taking counts as a try and makes the row due again later, should this process die under way.

    So a recipient is told at least once, and by no two processes at the same time. ``under_way`` maps owners, by id, to
    how many of theirs this process is trying to deliver: there are never more than ``OF_ONE_OWNER``, nor than
    ``AT_ONCE`` of all.
    """
    under_way = under_way or {}
    due = [Notification.sent_at.is_(None), Notification.failed_at.is_(None), Notification.due_at <= func.now()]
    earlier = case(dict(under_way), value=Job.owner_id, else_=0) if under_way else literal(0)
    turn = earlier + func.row_number().over(partition_by=Job.owner_id, order_by=Notification.due_at)
    ranked = select(Notification.id, turn.label("turn")).join(Job, Job.number == Notification.job_number).where(*due)
    first = ranked.subquery()
    statement = (
        select(Notification)
        .join(first, first.c.id == Notification.id)
        .where(first.c.turn <= OF_ONE_OWNER, *due)
        .order_by(Notification.due_at)
        .limit(AT_ONCE - sum(under_way.values()))
        .with_for_update(of=Notification, skip_locked=True)
    )
    taken = session.scalars(statement, execution_options={"populate_existing": True}).all()
    for one in taken:
        one.tries += 1
        one.due_at = func.now() + timedelta(seconds=PAUSES_SECONDS[min(one.tries, len(PAUSES_SECONDS)) - 1])
    session.flush()
    lost = [one for one in taken if one.tries > MOST_TRIES]  # the process that made the last try died under way
    for one in lost:
        _give_up(session, one, "the server ended during the last try")
    return [_notice(session, one, vault) for one in taken if one not in lost]


def _notice(session: Session, taken: Notification, vault: Vault) -> Notice:
    owner, team, registered = session.execute(
        select(User.id, Job.team_id, User.email)
        .join(User, User.id == Job.owner_id)
        .where(Job.number == taken.job_number)
    ).one()
    mine = select(Secret.ciphertext).where(Secret.team_id == team, Secret.name == SIGNING_SECRET)
    sealed = session.scalar(mine)
    key = vault.open(team, SIGNING_SECRET, sealed) if sealed is not None else None
    unreadable = sealed is not None and key is None
    return Notice(taken.id, taken.job_number, owner, taken.recipient, taken.document, registered, key, unreadable)


def note(session: Session, receipt: Receipt) -> None:
    """Note what became of a try, and tell the owner by an event; a row that was settled meanwhile stays as it is."""
    statement = select(Notification).where(Notification.id == receipt.notice.id).with_for_update()
    row = session.scalars(statement, execution_options={"populate_existing": True}).one_or_none()
    if row is None or row.sent_at or row.failed_at:
        return
    if receipt.problem is None:
        row.sent_at, row.problem = func.now(), None
        _tell(session, row, "notified", f"{_shown(row)} was told")
    elif not receipt.again or row.tries >= MOST_TRIES:
        _give_up(session, row, receipt.problem)
    else:
        row.problem = receipt.problem
        left = MOST_TRIES - row.tries
        again = f"it is tried again, at most {left} {'time' if left == 1 else 'times'}"
        _tell(session, row, "notification_failed", f"{_failed(row, receipt.problem)}; {again}")
    session.flush()


def _give_up(session: Session, row: Notification, problem: str) -> None:
    row.failed_at, row.problem = func.now(), problem
    _tell(session, row, "notification_failed", f"{_failed(row, problem)}; it is not tried again")
    session.flush()


def _failed(row: Notification, problem: str) -> str:
    return f"the notification to {_shown(row)} failed: {problem}"


def _shown(row: Notification) -> str:
    try:
        return recipient(row.recipient).shown
    except InvalidInput:  # stored by code that took it for one: it is given up, and holds up nobody else's
        return "a recipient that is none"


def _tell(session: Session, row: Notification, name: str, reason: str) -> None:
    add_event(session, name, actor="stoker", reason=reason, job=row.job_number)
    notify(session, SHOW, row.job_number)
