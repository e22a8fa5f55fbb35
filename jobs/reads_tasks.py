"""Attempts as whoever watches Celery's tasks is told of them: each is one task."""

from __future__ import annotations  # a Select of several columns cannot be written for every SQLAlchemy at run time

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import Session

from stoker.jobs.lifecycle import CANCEL, FAIL, REQUEUE, SUCCEED, AttemptState
from stoker.jobs.models import Attempt, Event, Incarnation, Job, Lease, Team, User, Worker

DAY_SECONDS = 86_400.0  # what is older nobody is told again
MOST = 1000  # of the latest ends
_ENDS = tuple(move.name for move in (SUCCEED, FAIL, CANCEL, REQUEUE))


@dataclass(frozen=True, slots=True)
class TaskView:
    """An attempt, and what became of its job when it ended."""

    attempt_id: UUID
    job_number: int
    ordinal: int
    name: str
    owner: str
    team: str
    worker: str
    host: str  # of the worker
    failure: dict[str, Any] | None  # class, evidence, fix
    cancelled_by: str | None
    claimed_at: datetime | None
    ended_at: datetime | None
    move: str | None  # what became of the job at its end: succeed, fail, cancel, requeue; None: it has not ended
    reason: str | None  # of the move


def ended_lately(session: Session, incarnation: UUID, age_seconds: float) -> list[TaskView]:
    """The ends of at most so many seconds ago that this worker tells of, oldest first.

    Those of its own attempts, whoever ended them. The first among the workers that live also tells of those of
    workers that are gone, for nobody else would.
    """
    since = func.now() - timedelta(seconds=min(age_seconds, DAY_SECONDS))
    return _views(session, Attempt.worker_id.in_(_told_by(session, incarnation)), Attempt.ended_at > since)


def running(session: Session, incarnation: UUID) -> list[TaskView]:
    """The attempts that this worker runs."""
    return _views(session, Attempt.incarnation_id == incarnation, Attempt.state == AttemptState.RUNNING)


def those(session: Session, attempts: Collection[UUID]) -> list[TaskView]:
    """These attempts, as far as they exist."""
    return _views(session, Attempt.id.in_(attempts)) if attempts else []


def _told_by(session: Session, incarnation: UUID) -> list[int]:
    """The workers, by id, whose attempts are told of by this incarnation."""
    own = session.scalar(select(Incarnation.worker_id).where(Incarnation.id == incarnation))
    if own is None:
        return []
    live = list(
        session.scalars(
            select(Incarnation.worker_id)
            .join(Lease, Lease.holder_id == Incarnation.id)
            .where(Incarnation.closed_at.is_(None), Lease.expires_at > func.clock_timestamp())
        )
    )
    if own not in live or own != min(live):
        return [own]
    lately = Worker.last_seen_at > func.now() - timedelta(seconds=DAY_SECONDS)
    return [own, *session.scalars(select(Worker.id).where(Worker.id.not_in(live), lately))]


def _views(session: Session, *wanted: ColumnElement[bool]) -> list[TaskView]:
    moved = and_(
        Event.job_number == Attempt.job_number,
        Event.attempt_id == Attempt.id,
        Event.name.in_(_ENDS),
        Attempt.state == AttemptState.ENDED,
    )
    rows = session.execute(
        select(
            Attempt.id,
            Job.number,
            Attempt.ordinal,
            Job.name,
            User.name,
            Team.name,
            Worker.name,
            Incarnation.host,
            Attempt.failure,
            Job.cancel_requested_by,
            Attempt.claimed_at,
            Attempt.ended_at,
            Event.name,
            Event.reason,
        )
        .join(Job, Job.number == Attempt.job_number)
        .join(User, User.id == Job.owner_id)
        .join(Team, Team.id == Job.team_id)
        .join(Worker, Worker.id == Attempt.worker_id)
        .join(Incarnation, Incarnation.id == Attempt.incarnation_id)
        .outerjoin(Event, moved)
        .where(*wanted)
        .order_by(Attempt.ended_at.desc())
        .limit(MOST)
    )
    return [TaskView(*row) for row in rows][::-1]
