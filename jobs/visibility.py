"""Who may see what, in one place: members what belongs to their team, admins everything.

What a caller may not see does not exist for them: the error is the same as for a number that was never given.
"""

from sqlalchemy import ColumnElement, select, true
from sqlalchemy.orm import InstrumentedAttribute, Session

from stoker.errors import Forbidden, JobNotFound, NotFound
from stoker.jobs.accounts import Caller
from stoker.jobs.models import Checkpoint, Job


def visible(caller: Caller, team_id: InstrumentedAttribute[int]) -> ColumnElement[bool]:
    """The condition under which a row of a team may be shown to a caller."""
    return true() if caller.admin else team_id == caller.team_id


def seen_job(session: Session, caller: Caller, number: int) -> Job:
    """A job that the caller may see; raises JobNotFound."""
    job = session.scalars(select(Job).where(Job.number == number, visible(caller, Job.team_id))).one_or_none()
    if job is None:
        raise JobNotFound(number)
    return job


def seen_checkpoint(session: Session, caller: Caller, checkpoint_id: int) -> Checkpoint:
    """A checkpoint of a job that the caller may see; raises NotFound."""
    statement = (
        select(Checkpoint)
        .join(Job, Job.number == Checkpoint.job_number)
        .where(Checkpoint.id == checkpoint_id, visible(caller, Job.team_id))
    )
    checkpoint = session.scalars(statement).one_or_none()
    if checkpoint is None:
        raise NotFound("checkpoint", checkpoint_id)
    return checkpoint


def may_steer(caller: Caller, job: Job) -> None:
    """Refuse a caller who is neither the job's owner nor an admin; raises Forbidden."""
    if not caller.admin and job.owner_id != caller.user_id:
        raise Forbidden(f"steer job {job.number}: it belongs to somebody else")


def must_be_admin(caller: Caller, action: str) -> None:
    """Refuse everybody but admins; raises Forbidden."""
    if not caller.admin:
        raise Forbidden(f"{action}: that takes an admin")
