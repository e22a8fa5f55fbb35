"""What runs, what is promised, and who is entitled to what, as the planner sees it, read from the database."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, select, text
from sqlalchemy.orm import Session

from stoker.jobs.charges import half, seconds_since
from stoker.jobs.fit import WHOLE, Demand, Spot
from stoker.jobs.models import Reservation as Reserved
from stoker.jobs.models import Team, TeamQuota, Usage
from stoker.jobs.shares import Quota, Shares, TeamShare
from stoker.jobs.situation import Candidate, Estimates, LimitsOnly, Reservation, Running

Estimator = Callable[[Session, Sequence[Candidate], Sequence[Running]], Estimates]

_CHANGING = text("""
SELECT a.id, j.priority, extract(epoch FROM greatest(a.claimed_at, c.created_at))::float8,
    a.claimed_at IS NOT NULL, extract(epoch FROM j.preempted_at)::float8,
    CASE WHEN a.preempt_requested_at IS NOT NULL THEN coalesce(a.preempt_for, 0)
         WHEN j.cancel_requested_at IS NOT NULL THEN 0 END
FROM attempts a JOIN jobs j ON j.number = a.job_number
    LEFT JOIN checkpoints c ON c.id = j.latest_checkpoint_id AND c.created_at > a.claimed_at
WHERE a.state <> 'ended'
ORDER BY a.job_number
""")
_LASTING = text("""
SELECT a.id, a.job_number, j.team_id, j.owner_id, a.worker_id, a.device, a.cpus_milli, a.memory_bytes, a.gpus_milli,
    extract(epoch FROM a.placed_at)::float8 AS placed_at, (j.spec->>'time_limit')::float8 AS time_limit,
    ARRAY(SELECT device_id FROM allocations WHERE attempt_id = a.id ORDER BY device_id) AS units
FROM attempts a JOIN jobs j ON j.number = a.job_number
WHERE a.id = ANY(CAST(:attempts AS uuid[]))
""")


class Runs:
    """The jobs that are placed or run. What never changes about an attempt is kept between passes: it is most of it."""

    def __init__(self) -> None:
        self._known: dict[UUID, tuple[Row[Any], Running]] = {}

    def read(self, session: Session) -> list[Running]:
        """All of them as they are now, also on workers that take no new ones."""
        rows, known = session.execute(_CHANGING).all(), self._known
        lasting = _lasting(session, [row[0] for row in rows if row[0] not in known])
        found: dict[UUID, tuple[Row[Any], Running]] = {}
        for row in rows:
            before = known.get(row[0])
            if before is not None and before[0] == row:
                found[row[0]] = before
            else:
                found[row[0]] = (row, _changed(before[1] if before else lasting[row[0]], *row[1:]))
        self._known = found
        return [running for _, running in found.values()]


def _lasting(session: Session, attempts: list[UUID]) -> dict[UUID, Running]:
    """What stays the same about these attempts; all else is still to be filled in."""
    if not attempts:
        return {}
    return {
        row.id: Running(
            row.job_number,
            0,
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
            time_limit_seconds=row.time_limit,
        )
        for row in session.execute(_LASTING, {"attempts": attempts})
    }


def _changed(
    running: Running,
    priority: int,
    kept_at: float | None,
    claimed: bool,
    preempted_at: float | None,
    leaves_for: int | None,
) -> Running:
    return replace(
        running,
        priority=priority,
        kept_at=kept_at or running.placed_at,
        claimed=claimed,
        preempted_at=preempted_at,
        leaves_for=leaves_for,
    )


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
