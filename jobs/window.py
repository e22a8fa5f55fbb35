"""The queue as the planner sees it: of each user's jobs of one priority and shape the first few, read by index."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import Row, select, text
from sqlalchemy.orm import Session

from stoker.jobs.fit import WHOLE, Demand
from stoker.jobs.models import Job
from stoker.jobs.situation import Candidate

WINDOW = 64  # jobs of one user, priority and shape that one pass looks at, at most
DEMANDS_KEPT = 10_000

# The first job of each key leads to the next key, so a million jobs of a thousand keys are a thousand steps down
# the index. Written as text: with parameters PostgreSQL could not tell that the partial index serves.
READY = "state = 'queued' AND NOT held AND cancel_requested_at IS NULL"
COLUMNS = """number, team_id, owner_id, priority, shape, own_order,
    extract(epoch FROM queued_at)::float8 AS queued_at, (spec->>'time_limit')::float8 AS time_limit,
    coalesce('#' || dataset_id, spec->'train'->>'dataset') AS data"""
WINDOW_SQL = f"""
WITH RECURSIVE keys AS (
    (SELECT team_id, owner_id, priority, shape FROM jobs WHERE {READY}
     ORDER BY team_id, owner_id, priority, shape LIMIT 1)
    UNION ALL
    SELECT following.* FROM keys CROSS JOIN LATERAL (
        SELECT team_id, owner_id, priority, shape FROM jobs
        WHERE {READY} AND (team_id, owner_id, priority, shape)
            > (keys.team_id, keys.owner_id, keys.priority, keys.shape)
        ORDER BY team_id, owner_id, priority, shape LIMIT 1
    ) following
)
SELECT ready.* FROM keys CROSS JOIN LATERAL (
    SELECT {COLUMNS} FROM jobs
    WHERE {READY} AND (not_before IS NULL OR not_before <= now())
        AND team_id = keys.team_id AND owner_id = keys.owner_id AND priority = keys.priority AND shape = keys.shape
    ORDER BY own_order, number LIMIT :rows
) ready
"""  # noqa: S608 - constants
HOLDERS_SQL = f"""
SELECT {COLUMNS} FROM jobs
WHERE {READY} AND (not_before IS NULL OR not_before <= now())
    AND number IN (SELECT job_number FROM reservations UNION ALL SELECT unnest(CAST(:also AS bigint[])))
"""  # noqa: S608 - constants


def demand_of(resources: dict[str, Any], machine: str | None = None, team: int | None = None) -> Demand:
    """What a job with these ``resources`` of its spec needs of one worker; ``team`` counts where it shares a device."""
    types = resources["gpu_type"]  # one model, or several that do: `V100M16|V100M32`
    share = min(WHOLE, round(resources["gpus"] * WHOLE))
    return Demand(
        cpus_milli=round(resources["cpus"] * 1000),
        memory_bytes=resources["memory"],
        device=resources["device"],
        gpus=max(1, round(resources["gpus"])),
        gpu_memory_bytes=resources["gpu_memory"] or 0,
        gpu_types=tuple(name.strip() for name in types.split("|")) if types else (),
        machine=machine,
        gpu_milli=share,
        team=team if share < WHOLE else None,
    )


def shape(resources: Mapping[str, Any]) -> bytes:
    """The digest of what decides where a job fits."""
    return hashlib.sha256(json.dumps(resources, sort_keys=True).encode()).digest()[:16]


def shape_on(before: bytes, machine: str) -> bytes:
    """The shape of a job from its first step on: it goes on on this kind of machine."""
    return hashlib.sha256(before + machine.encode()).digest()[:16]


class Demands:
    """The demand of each shape that was met; kept between passes, since shapes are few and jobs many.

    Threads may share it: what was found once stays as it is, and more is found in a copy.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, int], Demand] = {}

    def find(self, session: Session, rows: Iterable[Row[Any]]) -> Mapping[tuple[bytes, int], Demand]:
        """The demands of these jobs, by shape and team."""
        first, known = {(row.shape, row.team_id): row.number for row in rows}, self._known
        if first.keys() <= known.keys():
            return known
        known = {} if len(known) > DEMANDS_KEPT else dict(known)
        statement = select(Job.shape, Job.team_id, Job.spec["resources"].label("resources"), Job.pinned_machine)
        missing = [number for kind, number in first.items() if kind not in known]
        for job in session.execute(statement.where(Job.number.in_(missing))):
            demand = demand_of(job.resources, job.pinned_machine, job.team_id)
            same = next((one for one in known.values() if one == demand), demand)
            known[job.shape, job.team_id] = same  # one object for equal ones: quickly told to be equal
        self._known = known
        return known


def short(session: Session, most: int) -> bool:
    """Whether no more jobs than that are ready for their turn."""
    counted = text(f"SELECT count(*) FROM (SELECT FROM jobs WHERE {READY} LIMIT :rows) ready")  # noqa: S608 - a constant
    return int(session.scalar(counted, {"rows": most + 1}) or 0) <= most


def queue_window(session: Session, depth: int = WINDOW, demands: Demands | None = None) -> list[Candidate]:
    """The queued jobs that a pass may place: of each user, priority and shape the first ``depth``.

    A plan ends where it has placed the last of these while ``more`` stand behind it; the next pass goes on. So
    window and whole queue give the same placements, however small the window.
    """
    rows = session.execute(text(WINDOW_SQL), {"rows": depth + 1}).all()
    holders = session.execute(text(HOLDERS_SQL), {"also": []}).all()
    known = (demands or Demands()).find(session, [*rows, *holders])
    found = candidates(rows, known, depth)
    read = {job.number for job in found}
    return found + [job for job in candidates(holders, known, len(holders)) if job.number not in read]


def candidates(
    rows: Iterable[Sequence[Any]], known: Mapping[tuple[bytes, int], Demand], depth: int = 1
) -> list[Candidate]:
    """Jobs as they were read, those of one user, priority and shape together: the first ``depth``, and whether there
    are more.
    """
    found: list[Candidate] = []
    for (team, user, priority, like), group in groupby(rows, key=itemgetter(1, 2, 3, 4)):  # names take as long again
        jobs, demand = list(group), known[like, team]
        last = depth - 1 if len(jobs) > depth else depth
        for place, (number, _, _, _, _, own_order, queued_at, limit, data) in enumerate(jobs[:depth]):
            more = place == last
            since = min(queued_at, jobs[depth][6]) if more else queued_at  # it counts as old as one behind it
            found.append(Candidate(number, priority, demand, team, user, own_order, since, data, limit, more))
    return found
