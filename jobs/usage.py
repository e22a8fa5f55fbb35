"""What teams and users have used in a span of time, exact from their attempts."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from stoker.jobs.accounts import Caller
from stoker.jobs.models import Attempt, Job, Team, User
from stoker.jobs.policy import DEFAULT_POLICY

By = Literal["team", "user"]


@dataclass(frozen=True, slots=True)
class UsageView:
    """What a team or a user has used. Members see their own team; shares are of everybody's use all the same."""

    team: str
    user: str | None  # none where teams are told apart
    jobs: int  # that ran in this time
    gpu_seconds: float
    cpu_seconds: float
    device_seconds: float  # of a job, its GPUs or its part of a GPU's CPUs, whichever is more: what fair share counts
    share: float  # of all device-seconds, 0 to 1
    entitled: float  # the team's weight against all weights, 0 to 1


@dataclass(frozen=True, slots=True)
class UsageReport:
    """Use since a time, the greatest first."""

    since: datetime
    until: datetime
    items: list[UsageView]


def usage(session: Session, caller: Caller, by: By, since_seconds: float) -> UsageReport:
    """What was used in the last so many seconds, by what was claimed then; running attempts count up to now."""
    until: datetime = session.execute(select(func.now())).scalar_one()
    since = until - timedelta(seconds=since_seconds)
    rows = _sums(session, by, since, until)
    total = sum(row.device_seconds for row in rows)
    weights = {row.id: row.weight for row in session.execute(select(Team.id, Team.weight))}
    items = [
        UsageView(
            row.team,
            row.user if by == "user" else None,
            row.jobs,
            float(row.gpu_seconds),
            float(row.cpu_seconds),
            float(row.device_seconds),
            float(row.device_seconds / total) if total else 0.0,
            weights[row.team_id] / sum(weights.values()),
        )
        for row in rows
        if caller.admin or row.team_id == caller.team_id
    ]
    return UsageReport(since, until, items)


def _sums(
    session: Session, by: By, since: datetime, until: datetime
) -> Sequence[Row[int, str, str, int, int, int, int]]:
    ended = func.coalesce(Attempt.ended_at, until)
    seconds = func.extract("epoch", func.least(ended, until) - func.greatest(Attempt.claimed_at, since))
    gpus, cpus = Attempt.gpus_milli / 1000.0, Attempt.cpus_milli / 1000.0
    devices = func.greatest(gpus, cpus / DEFAULT_POLICY.cpus_per_gpu)
    sums = [func.sum(seconds * part) for part in (gpus, cpus, devices)]
    who = (Job.team_id, Team.name, User.name) if by == "user" else (Job.team_id, Team.name)
    statement = (
        select(
            Job.team_id,
            Team.name.label("team"),
            (User.name if by == "user" else Team.name).label("user"),
            func.count(func.distinct(Job.number)).label("jobs"),
            sums[0].label("gpu_seconds"),
            sums[1].label("cpu_seconds"),
            sums[2].label("device_seconds"),
        )
        .join_from(Attempt, Job, Job.number == Attempt.job_number)
        .join(Team, Team.id == Job.team_id)
        .join(User, User.id == Job.owner_id)
        .where(Attempt.claimed_at.is_not(None), Attempt.claimed_at < until, ended > since)
        .group_by(*who)
        .order_by(sums[2].desc(), *who[1:])
    )
    return session.execute(statement).all()
