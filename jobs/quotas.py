"""What teams are guaranteed in each pool, and the most that they may use there."""

from dataclasses import dataclass

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from stoker.errors import InvalidInput, NotFound
from stoker.jobs.accounts import Caller
from stoker.jobs.capacity import known_fleet
from stoker.jobs.models import Team, TeamQuota
from stoker.jobs.moves import add_event, notify
from stoker.jobs.pages import Page, cursor, position
from stoker.jobs.people import find_team, in_team
from stoker.jobs.pools import lock_pool
from stoker.quoting import shown

MOST = 10**6  # GPUs or CPUs
FIELDS = ("gpus", "cpus", "gpus_limit", "cpus_limit")


@dataclass(frozen=True, slots=True)
class QuotaView:
    """A team's quota in one pool, in whole devices and CPUs."""

    team: str
    pool: str
    gpus: float  # guaranteed
    cpus: float
    gpus_limit: float | None  # the most at once; none: whatever is idle may be borrowed
    cpus_limit: float | None


def set_quota(session: Session, team: str, pool: str, changes: dict[str, float | None], *, actor: str) -> QuotaView:
    """Change what a team is guaranteed in a pool; what ``changes`` does not name stays.

    Args:
        session: The caller commits.
        team: Its name.
        pool: Its name.
        changes: Of gpus, cpus, gpus_limit, cpus_limit; None for no limit.
        actor: Who asks.

    Raises:
        NotFound: No such team or pool.
        InvalidInput: Out of range, a limit below the guarantee, or all guarantees together above what the pool has.
    """
    owner = find_team(session, team)
    lock_pool(session, pool)  # two guarantees are not given out of the same room
    quota = session.get(TeamQuota, (owner.id, pool)) or TeamQuota(team_id=owner.id, pool=pool)
    before = _words(quota)
    for name, value in changes.items():
        setattr(quota, f"{name}_milli", _checked(name, value))
    for what in ("gpus", "cpus"):
        guaranteed, limit = getattr(quota, f"{what}_milli") or 0, getattr(quota, f"{what}_limit_milli")
        if limit is not None and limit < guaranteed:
            problem = f"{limit / 1000:g} is less than the {guaranteed / 1000:g} that are guaranteed"
            raise InvalidInput(f"{what}_limit", problem, "raise the limit, or guarantee less")
        if what in changes:
            _within_pool(session, quota, what, guaranteed)
    session.add(quota)
    session.flush()
    if _words(quota) != before:
        add_event(session, "quota_changed", actor=actor, reason=f"{team} in {pool}: {before} → {_words(quota)}")
        notify(session)
    return _view(quota, team)


def remove_quota(session: Session, team: str, pool: str, *, actor: str) -> None:
    """Guarantee a team nothing in a pool, and set it no limit. Raises NotFound."""
    owner = find_team(session, team)
    gone = delete(TeamQuota).where(TeamQuota.team_id == owner.id, TeamQuota.pool == pool).returning(TeamQuota.pool)
    if session.scalar(gone) is None:
        raise NotFound("quota of team", f"{team} in pool {shown(pool)}")
    add_event(session, "quota_removed", actor=actor, reason=f"{team} in {pool}")
    notify(session)


def list_quotas(session: Session, caller: Caller, limit: int, after: str | None) -> Page[QuotaView]:
    """The quotas of the teams that the caller may see."""
    start = position("quota", after) or 0
    statement = (
        select(TeamQuota, Team.name)
        .join(Team, Team.id == TeamQuota.team_id)
        .where(in_team(caller))
        .order_by(Team.id, TeamQuota.pool)
        .offset(start)
        .limit(limit + 1)
    )
    rows = session.execute(statement).all()
    found = [_view(quota, team) for quota, team in rows[:limit]]
    return Page(found, cursor("quota", start + limit) if len(rows) > limit else None)


def _checked(name: str, value: float | None) -> int | None:
    if value is None:
        if not name.endswith("_limit"):
            raise InvalidInput(name, "null is not accepted", "use 0 to guarantee nothing")
        return None
    if not 0 <= value <= MOST:
        raise InvalidInput(name, f"{value:g} is out of range", f"use 0 to {MOST:,}")
    return round(value * 1000)


def _within_pool(session: Session, quota: TeamQuota, what: str, wanted_milli: int) -> None:
    """Refuse to guarantee more than the pool's workers of the last seven days have; with none known, anything goes."""
    nodes = [node for node in known_fleet(session) if node.pool == quota.pool]
    if not nodes:
        return
    has = sum(sum(unit.capacity_milli for unit in node.units) if what == "gpus" else node.cpus_milli for node in nodes)
    column = TeamQuota.gpus_milli if what == "gpus" else TeamQuota.cpus_milli
    with session.no_autoflush:
        others = session.scalar(
            select(func.coalesce(func.sum(column), 0)).where(
                TeamQuota.pool == quota.pool, TeamQuota.team_id != quota.team_id
            )
        )
    left = max(0, has - int(others or 0))
    if wanted_milli > left:
        name = what.upper()[:-1] + "s"
        problem = f"{wanted_milli / 1000:g} is more than pool {quota.pool} can guarantee"
        fix = f"it has {has / 1000:g} {name}, of which {left / 1000:g} are guaranteed to no other team"
        raise InvalidInput(what, problem, fix)


def _words(quota: TeamQuota) -> str:
    view = _view(quota, "")
    limits = [f"at most {view.gpus_limit:g} GPUs"] if view.gpus_limit is not None else []
    limits += [f"at most {view.cpus_limit:g} CPUs"] if view.cpus_limit is not None else []
    return ", ".join([f"{view.gpus:g} GPUs", f"{view.cpus:g} CPUs", *limits])


def _view(quota: TeamQuota, team: str) -> QuotaView:
    found = [getattr(quota, f"{name}_milli") for name in FIELDS]
    gpus, cpus, gpus_limit, cpus_limit = (None if milli is None else milli / 1000 for milli in found)
    return QuotaView(team, quota.pool, gpus or 0.0, cpus or 0.0, gpus_limit, cpus_limit)
