"""Jobs that wait for others (``after``)."""

from sqlalchemy import exists, select
from sqlalchemy.orm import Session, aliased

from stoker.jobs.lifecycle import CANCEL, RELEASE, State
from stoker.jobs.models import Dependency, Job
from stoker.jobs.moves import apply, lock_job, notify


def settle(session: Session, number: int, state: State) -> None:
    """A job has ended: let its waiting children start, or cancel them and theirs."""
    children = select(Dependency.job_number).where(Dependency.parent_number == number).order_by(Dependency.job_number)
    for child in session.scalars(children).all():
        if lock_job(session, child).state != State.WAITING:
            continue
        if state is not State.SUCCEEDED:
            apply(session, CANCEL, child, actor="stoker", reason=f"parent_ended: job {number} {state}")
            settle(session, child, State.CANCELLED)
        elif not _waits(session, child):
            apply(session, RELEASE, child, actor="stoker", reason=f"job {number} succeeded")
            notify(session)


def _waits(session: Session, number: int) -> bool:
    parent = aliased(Job)
    open_parent = (
        select(Dependency.parent_number)
        .join(parent, parent.number == Dependency.parent_number)
        .where(Dependency.job_number == number, parent.state != State.SUCCEEDED)
    )
    return bool(session.scalar(select(exists(open_parent))))
