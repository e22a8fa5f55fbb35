"""The queue as a pass reads it: what there is by index, and jobs only where their turn may have come."""

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter

from sqlalchemy import text
from sqlalchemy.orm import Session

from stoker.jobs.fit import Demand
from stoker.jobs.situation import Candidate, Lane
from stoker.jobs.window import COLUMNS, HOLDERS_SQL, READY, WINDOW, Demands, candidates

# The first row of each group leads to the next group: so many steps down an index as there are groups, however many
# jobs. Written as text: with parameters PostgreSQL could not tell that the partial indexes serve.
LANES_SQL = f"""
WITH RECURSIVE lanes AS (
    (SELECT team_id, owner_id, priority, queued_at FROM jobs WHERE {READY}
     ORDER BY team_id, owner_id, priority, queued_at LIMIT 1)
    UNION ALL
    SELECT following.* FROM lanes CROSS JOIN LATERAL (
        SELECT team_id, owner_id, priority, queued_at FROM jobs
        WHERE {READY} AND (team_id, owner_id, priority) > (lanes.team_id, lanes.owner_id, lanes.priority)
        ORDER BY team_id, owner_id, priority, queued_at LIMIT 1
    ) following
)
SELECT team_id, owner_id, priority, extract(epoch FROM queued_at)::float8 FROM lanes
"""  # noqa: S608 - constants
SHAPES_SQL = f"""
WITH RECURSIVE shapes AS (
    (SELECT shape, team_id, number FROM jobs WHERE {READY} ORDER BY shape, team_id LIMIT 1)
    UNION ALL
    SELECT following.* FROM shapes CROSS JOIN LATERAL (
        SELECT shape, team_id, number FROM jobs WHERE {READY} AND (shape, team_id) > (shapes.shape, shapes.team_id)
        ORDER BY shape, team_id LIMIT 1
    ) following
)
SELECT shape, team_id, number FROM shapes
"""  # noqa: S608 - constants
JOBS_SQL = f"""
SELECT ready.* FROM unnest(CAST(:teams AS bigint[]), CAST(:users AS bigint[]), CAST(:priorities AS int[]),
    CAST(:shapes AS text[])) AS lane (team, owner, class, shapes)
CROSS JOIN LATERAL unnest(string_to_array(lane.shapes, ',')) AS wanted
CROSS JOIN LATERAL (
    SELECT {COLUMNS} FROM jobs
    WHERE {READY} AND (not_before IS NULL OR not_before <= now()) AND number <> ALL(CAST(:held AS bigint[]))
        AND team_id = lane.team AND owner_id = lane.owner AND priority = lane.class AND shape = decode(wanted, 'hex')
    ORDER BY own_order, number LIMIT :rows
) ready
"""  # noqa: S608 - constants


class Lanes:
    """The queue of one pass; of each user, priority and shape at most the first ``depth`` jobs.

    A plan ends where it has placed the last of these while ``more`` stand behind it; the next pass goes on. So
    the placements are those of the whole queue, however small the depth.
    """

    def __init__(self, session: Session, depth: int = WINDOW, demands: Demands | None = None) -> None:
        """See what there is, and read the jobs that hold reservations."""
        self._session, self._depth = session, depth
        self.lanes = [Lane(*row) for row in session.execute(text(LANES_SQL))]
        shapes = session.execute(text(SHAPES_SQL)).all() if self.lanes else []
        holders = session.execute(text(HOLDERS_SQL)).all() if self.lanes else []
        self._known = (demands or Demands()).find(session, [*shapes, *holders])
        self.holders = candidates(holders, self._known, len(holders))
        self.demands: dict[int, set[Demand]] = {}
        self._shapes: dict[int, str] = {}  # by team, in hex: an array of bytes takes psycopg ten times as long
        for team, rows in groupby(sorted(shapes, key=attrgetter("team_id")), key=attrgetter("team_id")):
            found = [row.shape for row in rows]
            self.demands[team] = {self._known[shape, team] for shape in found}
            self._shapes[team] = ",".join(shape.hex() for shape in found)

    def read(self, lanes: Sequence[Lane]) -> list[Candidate]:
        """The first jobs of each shape in these lanes."""
        known = [lane for lane in lanes if lane.team in self._shapes]
        given = {
            "teams": [lane.team for lane in known],
            "users": [lane.user for lane in known],
            "priorities": [lane.priority for lane in known],
            "shapes": [self._shapes[lane.team] for lane in known],
            "held": [job.number for job in self.holders],
            "rows": self._depth + 1,
        }
        rows = self._session.execute(text(JOBS_SQL), given).all() if known else []
        return candidates(rows, self._known, self._depth)
