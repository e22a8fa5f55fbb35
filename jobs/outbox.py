"""Notes down who is to be told of a job's end, in the transaction that ends it; jobs.deliveries tells them."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from stoker.jobs.models import Job, Notification, Result, Team, User


def leave_notices(session: Session, job: Job, reason: str) -> None:
    """Add one row for each recipient that the spec of a job, which has just ended, names."""
    if not (recipients := job.spec.get("notify")):
        return
    document = _document(session, job, reason)
    session.add_all(
        Notification(job_number=job.number, recipient=recipient, document=document) for recipient in recipients
    )


def _document(session: Session, job: Job, reason: str) -> dict[str, Any]:
    """The end as it is now: a retry may have begun by the time it is told."""
    owner, team = session.execute(
        select(User.name, Team.name).select_from(User).join(Team, Team.id == job.team_id).where(User.id == job.owner_id)
    ).one()
    times = {name: getattr(job, name) for name in ("created_at", "started_at", "finished_at")}
    return {
        "job": job.number,
        "name": job.name,
        "kind": job.kind,
        "state": job.state,
        "owner": owner,
        "team": team,
        "reason": reason,
        "failure": job.failure["class"] if job.failure else None,
        "accuracy": session.scalar(select(Result.accuracy).where(Result.job_number == job.number)),
        **{name: time.isoformat() if time else None for name, time in times.items()},
    }
