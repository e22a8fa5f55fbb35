"""What users do to jobs: submit, cancel."""

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from stoker.errors import AlreadyFinal, InvalidInput, KeyReused, NotFound
from stoker.jobs import dependencies
from stoker.jobs.changes import allow_urgent
from stoker.jobs.endings import end
from stoker.jobs.lifecycle import CANCEL, FINAL, AttemptState, Outcome, State
from stoker.jobs.models import Dependency, IdempotencyKey, Job, JobDataset, User
from stoker.jobs.moves import REQUEST, add_event, apply, lock_live, notify
from stoker.jobs.pins import pin
from stoker.jobs.protocol import PROTOCOL
from stoker.jobs.refusals import refuse_unrunnable
from stoker.jobs.spec import PRIORITIES, JobSpec
from stoker.jobs.window import shape


def add_job(
    session: Session, spec: JobSpec, user: User, *, key: str | None = None, request_sha256: bytes = b""
) -> tuple[Job, bool]:
    """Accept a job; returns it, and whether it is new.

    With the ``key`` of an earlier request of this user the earlier job is returned; two requests with one key at
    the same time wait for each other, so there is one job.

    Raises KeyReused: the key came with another body; NotFound: no such parent; InvalidInput: no such data set, code or
    secret; Unrunnable; UrgentInUse.
    """
    if key is not None and (known := _reserve_key(session, user, key, request_sha256)) is not None:
        return known, False
    document = spec.document()
    pins = pin(session, spec, user.team_id)
    refuse_unrunnable(session, spec, user.team_id)
    if spec.priority == "urgent" and user.role != "admin":
        allow_urgent(session, user.team_id)
    parents = _parents(session, spec, user)
    job = Job(
        owner_id=user.id,
        team_id=user.team_id,
        name=spec.name,
        kind=spec.kind,
        spec=document,
        tags=spec.tags,
        priority=PRIORITIES[spec.priority],
        shape=shape(document["resources"]),
        dataset_id=pins.dataset_id,
        code_sha256=pins.code_sha256,
        protocol=PROTOCOL,
        state=State.WAITING if parents else State.QUEUED,
        queued_at=None if parents else func.now(),
    )
    session.add(job)
    session.flush()
    session.add_all(
        JobDataset(job_number=job.number, name=name, dataset_id=found) for name, found in pins.datasets.items()
    )
    session.add_all(Dependency(job_number=job.number, parent_number=parent) for parent in parents)
    if key is not None:
        session.execute(
            update(IdempotencyKey)
            .where(IdempotencyKey.user_id == user.id, IdempotencyKey.key == key)
            .values(job_number=job.number)
        )
    add_event(session, "submit", actor=user.name, reason="asked", job=job.number)
    session.flush()
    notify(session)
    return job, True


def _reserve_key(session: Session, user: User, key: str, request_sha256: bytes) -> Job | None:
    """Insert the key; None when it is new. A concurrent request with the same key waits here for our commit."""
    new = (
        upsert(IdempotencyKey)
        .values(user_id=user.id, key=key, request_sha256=request_sha256, job_number=0)
        .on_conflict_do_nothing()
        .returning(IdempotencyKey.key)
    )
    if session.scalar(new) is not None:
        return None
    known = session.get_one(IdempotencyKey, (user.id, key), populate_existing=True)
    if known.request_sha256 != request_sha256:
        raise KeyReused(f"the Idempotency-Key was used for job {known.job_number} with another body; use a new key")
    return session.get_one(Job, known.job_number)


def _parents(session: Session, spec: JobSpec, user: User) -> list[int]:
    """The parents that have not succeeded yet."""
    if not spec.after:
        return []
    rows = session.execute(
        select(Job.number, Job.state)
        .where(Job.number.in_(spec.after), Job.team_id == user.team_id)
        .with_for_update(read=True)
    ).all()
    states = {row.number: row.state for row in rows}
    for number in spec.after:
        if number not in states:
            raise NotFound("job", number, "it is named in `after`")
        if states[number] in FINAL and states[number] != State.SUCCEEDED:
            raise InvalidInput("after", f"job {number} {states[number]}", "name jobs that can still succeed")
    return sorted(number for number, state in states.items() if state != State.SUCCEEDED)


def cancel(session: Session, number: int, *, actor: str, reason: str = "asked") -> Job:
    """Cancel a job: at once while nothing runs, else by asking its worker. Asking twice is the same as once.

    Raises JobNotFound, or AlreadyFinal for a job that succeeded or failed.
    """
    attempt, job = lock_live(session, number)
    if job.state == State.CANCELLED:
        return job
    if job.state in FINAL:
        raise AlreadyFinal(number, "cancel", job.state)
    new = job.cancel_requested_at is None
    if new:
        job.cancel_requested_at, job.cancel_requested_by = func.now(), actor
        session.flush()
    if attempt is None and job.state in {State.WAITING, State.QUEUED}:
        job = apply(session, CANCEL, number, actor=actor, reason=reason)
        dependencies.settle(session, number, State.CANCELLED)
    elif attempt is not None and attempt.state == AttemptState.PLACED:
        end(session, attempt, Outcome.CANCELLED, actor=actor, reason=reason)
    elif attempt is not None and new:
        add_event(session, "cancel_requested", actor=actor, reason=reason, job=number, attempt=attempt.id)
        notify(session, REQUEST, attempt.id)
    notify(session)
    session.refresh(job)
    return job
