"""What users do to jobs that they have: hold, release, retry, preempt."""

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from stoker.errors import AlreadyFinal, Conflict, InvalidInput
from stoker.jobs import dependencies
from stoker.jobs.endings import end
from stoker.jobs.lifecycle import FINAL, RETRY, RETRY_AFTER, AttemptState, Outcome, State
from stoker.jobs.models import Checkpoint, Job
from stoker.jobs.moves import REQUEST, SHOW, add_event, apply, lock_job, lock_live, notify
from stoker.jobs.records import best_checkpoints
from stoker.jobs.resuming import usable
from stoker.quoting import quoted

ORIGINS = ("latest", "best", "scratch")


class PreemptFirst(Conflict):
    """Only a job that waits can be held."""

    code = "preempt_first"


class ParentFailed(Conflict):
    """A job comes after one that did not succeed."""

    code = "parent_failed"


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

    What it used of max_retries and time_limit is forgotten. Children that its end cancelled stay cancelled; it
    waits again for its own parents.

    Raises JobNotFound, MoveRefused, ParentFailed, InvalidInput.
    """
    if origin not in ORIGINS:
        raise InvalidInput("from", f"{quoted(origin)} is not known", f"known: {', '.join(ORIGINS)}")
    lock_job(session, number)
    if failed := dependencies.failed_parents(session, number):
        raise ParentFailed(f"job {failed[0]}, which it comes after, did not succeed: retry that first")
    start = _origin(session, number, origin)
    _supersede(session, number, start)
    retried = apply(
        session,
        RETRY_AFTER if dependencies.open_parents(session, number) else RETRY,
        number,
        actor=actor,
        reason=f"asked, from {origin}",
        retries_used=0,
        retried_at=func.now(),
        losses_counted_from=func.now(),
        not_before=None,
        held=False,
        cancel_requested_at=None,
        cancel_requested_by=None,
        latest_checkpoint_id=start,
    )
    notify(session)
    return retried


def _origin(session: Session, number: int, origin: str) -> int | None:
    if origin == "scratch":
        return None
    if origin == "best" and (best := best_checkpoints(session, number, 1)):
        return best[0]
    kept = select(func.max(Checkpoint.id)).where(Checkpoint.job_number == number, usable())
    return session.scalar(kept)  # without a validation split, best is latest


def _supersede(session: Session, number: int, origin: int | None) -> None:
    """What was written after the checkpoint to go on from belongs to a course that was left."""
    later = update(Checkpoint).where(Checkpoint.job_number == number, Checkpoint.superseded_at.is_(None))
    if origin is not None:
        later = later.where(Checkpoint.id > origin)
    session.execute(later.values(superseded_at=func.now()))


def preempt(session: Session, number: int, *, actor: str, reason: str = "asked") -> Job:
    """Ask a running job to make room: it writes a checkpoint, stops, and goes on later; a placed one at once.

    Raises JobNotFound, NotRunning.
    """
    attempt, job = lock_live(session, number)
    if attempt is None:
        raise NotRunning(f"job {number} is {job.state}: only a running job can be preempted")
    if attempt.state == AttemptState.PLACED:
        end(session, attempt, Outcome.PREEMPTED, actor=actor, reason=reason)
    elif attempt.preempt_requested_at is None:
        attempt.preempt_requested_at, attempt.preempt_reason = func.now(), reason
        add_event(session, "preempt_requested", actor=actor, reason=reason, job=number, attempt=attempt.id)
        session.flush()
        notify(session, REQUEST, attempt.id)
    notify(session, SHOW, number)
    session.refresh(job)
    return job
