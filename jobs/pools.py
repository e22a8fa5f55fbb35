"""Pools of workers, and whether jobs may share a device there."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from stoker.errors import NotFound
from stoker.jobs.models import Pool, Worker
from stoker.jobs.moves import add_event, notify
from stoker.jobs.pages import Page, cursor, position
from stoker.quoting import shown


@dataclass(frozen=True, slots=True)
class PoolView:
    """Workers that are shared out together."""

    name: str
    fractions: bool  # whether jobs of one team may share a device
    workers: int  # that named it, gone ones too
    created_at: datetime


def list_pools(session: Session, limit: int, after: str | None) -> Page[PoolView]:
    """All pools by name: whoever submits has to know what is shared out."""
    start = position("pool", after) or 0
    found = session.scalars(select(Pool).order_by(Pool.name).offset(start).limit(limit + 1)).all()
    views = [_view(session, pool) for pool in found[:limit]]
    return Page(views, cursor("pool", start + limit) if len(found) > limit else None)


def lock_pool(session: Session, name: str) -> Pool:
    """Hold a pool until the transaction ends; raises NotFound."""
    pool = session.scalars(select(Pool).where(Pool.name == name).with_for_update()).one_or_none()
    if pool is None:
        known = ", ".join(session.scalars(select(Pool.name).order_by(Pool.name).limit(12)))
        raise NotFound("pool", shown(name), f"known: {known}; a worker that names a pool makes it")
    return pool


def set_fractions(session: Session, name: str, fractions: bool, *, actor: str) -> PoolView:
    """Let jobs of one team share a device in a pool, or no longer; what shares one already runs on. Raises NotFound."""
    pool = lock_pool(session, name)
    if pool.fractions != fractions:
        pool.fractions = fractions
        words = "are allowed" if fractions else "are no longer allowed"
        add_event(session, "pool_changed", actor=actor, reason=f"parts of a GPU {words} in {name}")
        session.flush()
        notify(session)
    return _view(session, pool)


def _view(session: Session, pool: Pool) -> PoolView:
    workers = session.scalar(select(func.count()).where(Worker.pool == pool.name))
    return PoolView(pool.name, pool.fractions, int(workers or 0), pool.created_at)
