"""What runs, what is promised, and who is entitled to what, as the planner sees it, read from the database."""

from collections import defaultdict
from collections.abc import Callable, Sequence

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from stoker.jobs.charges import half, seconds_since
from stoker.jobs.fit import WHOLE, Demand, Spot
from stoker.jobs.models import Reservation as Reserved
from stoker.jobs.models import Team, TeamQuota, Usage
from stoker.jobs.shares import Quota, Shares, TeamShare
from stoker.jobs.situation import Candidate, Estimates, LimitsOnly, Reservation, Running

Estimator = Callable[[Session, Sequence[Candidate], Sequence[Running]], Estimates]

_AFRESH = {"populate_existing": True}
_RUNNING = text("""
SELECT a.job_number, j.priority, j.team_id, j.owner_id, a.worker_id, a.device, a.cpus_milli, a.memory_bytes,
    a.gpus_milli, extract(epoch FROM a.placed_at)::float8 AS placed_at,
    extract(epoch FROM greatest(a.claimed_at, c.created_at))::float8 AS kept_at, a.claimed_at IS NOT NULL AS claimed,
    extract(epoch FROM j.preempted_at)::float8 AS preempted_at,
    CASE WHEN a.preempt_requested_at IS NOT NULL THEN coalesce(a.preempt_for, 0)
         WHEN j.cancel_requested_at IS NOT NULL THEN 0 END AS leaves_for,
    (j.spec->>'time_limit')::float8 AS time_limit,
    ARRAY(SELECT device_id FROM allocations WHERE attempt_id = a.id ORDER BY device_id) AS units
FROM attempts a JOIN jobs j ON j.number = a.job_number
    LEFT JOIN checkpoints c ON c.id = j.latest_checkpoint_id AND c.created_at > a.claimed_at
WHERE a.state <> 'ended'
ORDER BY a.job_number
""")


def running_jobs(session: Session) -> list[Running]:
    """All jobs that are placed or run, also on workers that take no new ones."""
    return [
        Running(
            row.job_number,
            row.priority,
            Demand(
                row.cpus_milli,
                row.memory_bytes,
                row.device,
                max(1, len(row.units)),
                gpu_milli=min(WHOLE, row.gpus_milli // len(row.units)) if row.units else WHOLE,
                team=row.team_id if row.units and row.gpus_milli < WHOLE else None,
            ),
            Spot(row.worker_id, row.device, tuple(row.units)),
            team=row.team_id,
            user=row.owner_id,
            placed_at=row.placed_at,
            kept_at=row.kept_at or row.placed_at,
            claimed=row.claimed,
            preempted_at=row.preempted_at,
            leaves_for=row.leaves_for,
            time_limit_seconds=row.time_limit,
        )
        for row in session.execute(_RUNNING)
    ]


def reservations(session: Session) -> list[Reservation]:
    """The places that are promised."""
    found = session.scalars(select(Reserved).order_by(Reserved.job_number), execution_options=_AFRESH)
    return [
        Reservation(
            one.job_number,
            Spot(one.worker_id, one.device, tuple(one.devices)),
            one.made_at.timestamp(),
            one.starts_at.timestamp() if one.starts_at else None,
            one.expires_at.timestamp() if one.expires_at else None,
        )
        for one in found
    ]


def shares(session: Session) -> Shares:
    """Quotas, weights, and what was used, decayed to now."""
    quotas: dict[int, dict[str, Quota]] = defaultdict(dict)
    for row in session.scalars(select(TeamQuota), execution_options=_AFRESH):
        quotas[row.team_id][row.pool] = Quota(
            row.gpus_milli, row.cpus_milli, row.gpus_limit_milli, row.cpus_limit_milli
        )
    used: dict[int, float] = defaultdict(float)
    users: dict[int, float] = defaultdict(float)
    decayed = Usage.device_seconds * half(seconds_since(Usage.counted_at))
    for team, user, seconds in session.execute(select(Usage.team_id, Usage.user_id, decayed)):
        used[team] += seconds
        users[user] += seconds
    teams = {
        team: TeamShare(name, weight, used[team], quotas.get(team, {}))
        for team, name, weight in session.execute(select(Team.id, Team.name, Team.weight))
    }
    return Shares(teams, users)


def limits_only(session: Session, queue: Sequence[Candidate], running: Sequence[Running]) -> Estimates:  # noqa: ARG001
    """The estimator that knows nothing but time limits."""
    return LimitsOnly()
