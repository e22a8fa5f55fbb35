"""What users change about jobs that they have: priority, name, tags, and which of their own goes first."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from stoker.errors import AlreadyFinal, Conflict
from stoker.jobs.lifecycle import FINAL, State
from stoker.jobs.models import Job, Team
from stoker.jobs.moves import SHOW, add_event, lock_job, notify
from stoker.jobs.spec import PRIORITIES

URGENT_AT_ONCE = 1  # of one team: each preempts others, so the harm that a team can do is bounded, at any hour
_NAMES = {level: name for name, level in PRIORITIES.items()}


class UrgentInUse(Conflict):
    """A team has as many urgent jobs as it may have at once."""

    code = "urgent_in_use"


class NotWaiting(Conflict):
    """Only a job that waits has a turn."""

    code = "not_waiting"


def allow_urgent(session: Session, team_id: int, *, but: int = 0) -> None:
    """Refuse one more urgent job of a team; raises UrgentInUse. Two requests at once wait for each other here."""
    session.execute(select(Team.id).where(Team.id == team_id).with_for_update(key_share=True))
    refuse_urgent(session, team_id, but=but)


def refuse_urgent(session: Session, team_id: int, *, but: int = 0) -> None:
    """Refuse as ``allow_urgent`` does, for a question that stores nothing and so locks nothing."""
    urgent = select(Job.number).where(
        Job.team_id == team_id,
        Job.priority == PRIORITIES["urgent"],
        Job.state.not_in(FINAL),
        Job.number != but,
    )
    known = session.scalars(urgent.order_by(Job.number).limit(URGENT_AT_ONCE)).all()
    if len(known) >= URGENT_AT_ONCE:
        raise UrgentInUse(f"job {known[0]} of the team is urgent, and one at a time may be: use high, or ask an admin")


def change(
    session: Session,
    number: int,
    *,
    actor: str,
    admin: bool,
    priority: str | None = None,
    name: str | None = None,
    tags: list[str] | None = None,
) -> Job:
    """Give a job another priority, name or tags; what is None stays. Values that are set already change nothing.

    Raises JobNotFound; AlreadyFinal for the priority of a job that has ended; UrgentInUse.
    """
    job = lock_job(session, number)
    changes = []
    if priority is not None and PRIORITIES[priority] != job.priority:
        if job.state in FINAL:
            raise AlreadyFinal(number, "prioritise", job.state)
        if priority == "urgent" and not admin:
            allow_urgent(session, job.team_id, but=number)
        changes.append(f"priority {_NAMES[job.priority]} → {priority}")
        job.priority = PRIORITIES[priority]
    if name is not None and name != job.name:
        changes.append(f"name {job.name} → {name}")
        job.name = name
    if tags is not None and tags != job.tags:
        changes.append(f"tags {', '.join(tags) or 'none'}")
        job.tags = tags
    if changes:
        job.spec = job.spec | {"priority": _NAMES[job.priority], "name": job.name, "tags": job.tags}
        _tell(session, job, "change", actor, "; ".join(changes))
    return job


def first(session: Session, number: int, *, actor: str) -> Job:
    """Put a waiting job before the others of its owner, within its priority. Doing so twice is the same as once.

    Raises JobNotFound, NotWaiting.
    """
    job = lock_job(session, number)
    if job.state not in {State.WAITING, State.QUEUED}:
        raise NotWaiting(f"job {number} is {job.state}: only a job that waits can go first")
    others = select(func.min(Job.own_order)).where(
        Job.owner_id == job.owner_id, Job.state.in_([State.WAITING, State.QUEUED]), Job.number != number
    )
    least = session.scalar(others)
    if least is not None and job.own_order >= least:
        job.own_order = least - 1
        _tell(session, job, "first", actor, "asked")
    return job


def _tell(session: Session, job: Job, name: str, actor: str, reason: str) -> None:
    add_event(session, name, actor=actor, reason=reason, job=job.number)
    session.flush()
    notify(session, SHOW, job.number)
    notify(session)
