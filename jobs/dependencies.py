"""Jobs that wait for others (``after``)."""

from collections import deque

from sqlalchemy import Select, select
from sqlalchemy.orm import Session, aliased, sessionmaker

from stoker.errors import OtherVersion
from stoker.jobs.lifecycle import CANCEL, FINAL, RELEASE, State
from stoker.jobs.models import Dependency, Job
from stoker.jobs.moves import apply, lock_job, notify
from stoker.jobs.protocol import PROTOCOL

_PARENT = aliased(Job)
_LEFT = (  # by way of the index of jobs that wait, which are few
    select(_PARENT.number)
    .distinct()
    .join(Dependency, Dependency.parent_number == _PARENT.number)
    .join(Job, Job.number == Dependency.job_number)
    .where(Job.state == State.WAITING, Job.protocol <= PROTOCOL)
    .where(_PARENT.state.in_([State.FAILED, State.CANCELLED]))
    .order_by(_PARENT.number)
)


def settle(session: Session, number: int, state: State) -> None:
    """A job has ended: let its waiting children start, or cancel them and all that wait for them.

    A child that newer code accepted is left to that code where it would have to be cancelled (``settle_left``): it
    must not keep its parent from ending.
    """
    ended = deque([(number, state)])
    while ended:
        parent, outcome = ended.popleft()
        for child in session.scalars(_children(parent)).all():
            if lock_job(session, child).state != State.WAITING:
                continue
            if outcome is not State.SUCCEEDED:
                try:
                    apply(session, CANCEL, child, actor="stoker", reason=f"parent_ended: job {parent} {outcome}")
                except OtherVersion:
                    continue
                ended.append((child, State.CANCELLED))
            elif not open_parents(session, child):
                apply(session, RELEASE, child, actor="stoker", reason=f"job {parent} succeeded")
                notify(session)


def settle_left(factory: sessionmaker[Session]) -> None:
    """Cancel what waits for jobs that older code ended and that did not succeed, one such job a transaction."""
    with factory() as session:
        numbers = session.scalars(_LEFT).all()
    for number in numbers:
        with factory() as session:
            state = State(lock_job(session, number).state)
            if state in FINAL and state is not State.SUCCEEDED:  # nobody has retried it meanwhile
                settle(session, number, state)
            session.commit()


def _children(number: int) -> Select[int]:
    return select(Dependency.job_number).where(Dependency.parent_number == number).order_by(Dependency.job_number)


def open_parents(session: Session, number: int) -> list[int]:
    """The parents of a job that have not succeeded, and still can."""
    return [parent for parent, state in _parents(session, number) if state not in FINAL]


def failed_parents(session: Session, number: int) -> list[int]:
    """The parents of a job that ended and did not succeed."""
    return [parent for parent, state in _parents(session, number) if state in FINAL and state != State.SUCCEEDED]


def _parents(session: Session, number: int) -> list[tuple[int, str]]:
    rows = session.execute(
        select(Job.number, Job.state)
        .join(Dependency, Dependency.parent_number == Job.number)
        .where(Dependency.job_number == number)
        .order_by(Job.number)
    )
    return [(row.number, row.state) for row in rows]
