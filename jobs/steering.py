"""What users do to jobs that they have: hold, release, retry, preempt."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from stoker.errors import AlreadyFinal, Conflict, InvalidInput
from stoker.jobs.endings import end
from stoker.jobs.lifecycle import FINAL, RETRY, AttemptState, Outcome, State
from stoker.jobs.models import Attempt, Checkpoint, Job
from stoker.jobs.moves import REQUEST, SHOW, add_event, apply, lock_job, notify
from stoker.jobs.records import best_checkpoints

ORIGINS = ("latest", "best", "scratch")


class PreemptFirst(Conflict):
    """Only a job that waits can be held."""

    code = "preempt_first"


class NotRunning(Conflict):
    """Only a job that is placed or running can be preempted."""

    code = "not_running"


def set_held(session: Session, number: int, held: bool, *, actor: str) -> Job:
    """Keep a waiting job out of every plan, or let it take its turn again. Doing so twice is the same as once.

    Raises JobNotFound, AlreadyFinal, PreemptFirst.
    """
    verb = "hold" if held else "release"
    job = lock_job(session, number)
    if job.state in FINAL:
        raise AlreadyFinal(number, verb, job.state)
    if held and job.state in {State.PLACED, State.RUNNING}:
        raise PreemptFirst(f"job {number} is {job.state}: `stoker preempt {number}` first, then hold it")
    if job.held != held:
        job.held = held
        add_event(session, verb, actor=actor, reason="asked", job=number)
        session.flush()
        notify(session, SHOW, number)
        notify(session)
    return job


def retry(session: Session, number: int, *, actor: str, origin: str = "latest") -> Job:
    """Queue a failed or cancelled job again, from its latest or best checkpoint, or from scratch.

    What it used of max_retries is forgotten. Children that its end cancelled stay cancelled.

    Raises JobNotFound, MoveRefused, InvalidInput.
    """
    if origin not in ORIGINS:
        raise InvalidInput("from", f"{origin!r:.60} is not known", f"known: {', '.join(ORIGINS)}")
    job = lock_job(session, number)
    retried = apply(
        session,
        RETRY,
        number,
        actor=actor,
        reason=f"asked, from {origin}",
        retries_used=0,
        losses_counted_from=func.now(),
        not_before=None,
        held=False,
        cancel_requested_at=None,
        cancel_requested_by=None,
        latest_checkpoint_id=_origin(session, job, origin),
    )
    notify(session)
    return retried


def _origin(session: Session, job: Job, origin: str) -> int | None:
    if origin == "scratch":
        return None
    if origin == "best" and (best := best_checkpoints(session, job.number, 1)):
        return best[0]
    kept = select(func.max(Checkpoint.id)).where(
        Checkpoint.job_number == job.number, Checkpoint.blob_id.is_not(None), Checkpoint.damaged_at.is_(None)
    )
    return session.scalar(kept)  # without a validation split, best is latest


def preempt(session: Session, number: int, *, actor: str, reason: str = "asked") -> Job:
    """Ask a running job to make room: it writes a checkpoint, stops, and goes on later; a placed one at once.

    Raises JobNotFound, NotRunning.
    """
    attempt = session.scalars(
        select(Attempt).where(Attempt.job_number == number, Attempt.state != AttemptState.ENDED).with_for_update(),
        execution_options={"populate_existing": True},
    ).one_or_none()
    if attempt is None:
        raise NotRunning(f"job {number} is {lock_job(session, number).state}: only a running job can be preempted")
    if attempt.state == AttemptState.PLACED:
        end(session, attempt, Outcome.PREEMPTED, actor=actor, reason=reason)
    elif attempt.preempt_requested_at is None:
        attempt.preempt_requested_at, attempt.preempt_reason = func.now(), reason
        add_event(session, "preempt_requested", actor=actor, reason=reason, job=number, attempt=attempt.id)
        session.flush()
        notify(session, REQUEST, attempt.id)
    job = lock_job(session, number)
    notify(session, SHOW, number)
    return job
