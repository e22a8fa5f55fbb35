"""What runs, what is promised, and who is entitled to what, as the planner sees it, read from the database."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from decimal import Decimal

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from stoker.jobs.charges import half, seconds_since
from stoker.jobs.fit import WHOLE, Demand, Spot
from stoker.jobs.models import Reservation as Reserved
from stoker.jobs.models import Team, TeamQuota, Usage
from stoker.jobs.shares import Quota, Shares, TeamShare
from stoker.jobs.situation import Candidate, Estimates, LimitsOnly, Reservation, Running

Estimator = Callable[[Session, Sequence[Candidate], Sequence[Running]], Estimates]

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


_RESERVATIONS = select(
    *(getattr(Reserved, name) for name in ("job_number", "worker_id", "device", "devices")),
    *(func.extract("epoch", moment) for moment in (Reserved.made_at, Reserved.starts_at, Reserved.expires_at)),
).order_by(Reserved.job_number)


def reservations(session: Session) -> list[Reservation]:
    """The places that are promised."""
    return [
        Reservation(
            number, Spot(worker, device, tuple(units)), float(made_at), _seconds(starts_at), _seconds(expires_at)
        )
        for number, worker, device, units, made_at, starts_at, expires_at in session.execute(_RESERVATIONS)
    ]


def _seconds(moment: Decimal | None) -> float | None:
    return None if moment is None else float(moment)


_QUOTAS = (
    select(
        func.jsonb_object_agg(
            TeamQuota.pool,
            func.jsonb_build_array(
                TeamQuota.gpus_milli, TeamQuota.cpus_milli, TeamQuota.gpus_limit_milli, TeamQuota.cpus_limit_milli
            ),
        )
    )
    .where(TeamQuota.team_id == Team.id)
    .scalar_subquery()
)
_USED = (
    select(func.jsonb_object_agg(Usage.user_id, Usage.device_seconds * half(seconds_since(Usage.counted_at))))
    .where(Usage.team_id == Team.id)
    .scalar_subquery()
)
_SHARES = select(Team.id, Team.name, Team.weight, _QUOTAS.label("quotas"), _USED.label("used"))


def shares(session: Session) -> Shares:
    """Quotas, weights, and what was used, decayed to now."""
    teams: dict[int, TeamShare] = {}
    users: dict[int, float] = defaultdict(float)
    for row in session.execute(_SHARES):
        quotas = {pool: Quota(*amounts) for pool, amounts in (row.quotas or {}).items()}
        used = {int(user): seconds for user, seconds in (row.used or {}).items()}
        teams[row.id] = TeamShare(row.name, row.weight, float(sum(used.values())), quotas)
        for user, seconds in used.items():
            users[user] += seconds
    return Shares(teams, users)


def limits_only(session: Session, queue: Sequence[Candidate], running: Sequence[Running]) -> Estimates:  # noqa: ARG001
    """The estimator that knows nothing but time limits."""
    return LimitsOnly()
