"""The queue as a pass reads it: what there is by index, and jobs only where their turn may have come."""

from collections.abc import Collection, Iterable, Sequence

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
    SELECT first.* FROM unnest(CAST(:teams AS bigint[])) AS given (team) CROSS JOIN LATERAL (
        SELECT team_id, shape, number FROM jobs WHERE {READY} AND team_id = given.team
        ORDER BY team_id, shape LIMIT 1
    ) first
    UNION ALL
    SELECT following.* FROM shapes CROSS JOIN LATERAL (
        SELECT team_id, shape, number FROM jobs
        WHERE {READY} AND team_id = shapes.team_id AND shape > shapes.shape
        ORDER BY team_id, shape LIMIT 1
    ) following
)
SELECT team_id, shape, number FROM shapes
"""  # noqa: S608 - constants
_JOBS = """
SELECT ready.* FROM unnest(CAST(:teams AS bigint[]), CAST(:users AS bigint[]), CAST(:priorities AS int[]),
    CAST(:shapes AS text[])) AS lane (team, owner, class, shapes)
CROSS JOIN LATERAL unnest(string_to_array(lane.shapes, ',')) AS wanted  -- an array of bytes is slow to send
CROSS JOIN LATERAL (
    SELECT {COLUMNS} FROM jobs
    WHERE {READY} AND (not_before IS NULL OR not_before <= now()) AND number <> ALL(CAST(:held AS bigint[]))
        AND team_id = lane.team AND owner_id = lane.owner AND priority = lane.class AND shape = decode(wanted, 'hex')
        {BEHIND}
    ORDER BY own_order, number LIMIT :rows
) ready
"""
JOBS_SQL = _JOBS.format(COLUMNS=COLUMNS, READY=READY, BEHIND="")
BEHIND_SQL = _JOBS.format(COLUMNS=COLUMNS, READY=READY, BEHIND="AND (own_order, number) > (:own_order, :number)")
# In the order of the index, which knows no ``own_order``: those that were moved to the front have the first turns.
NEXT_SQL = f"""
SELECT ready.* FROM unnest(CAST(:teams AS bigint[]), CAST(:users AS bigint[]), CAST(:priorities AS int[]))
    AS lane (team, owner, class)
CROSS JOIN LATERAL (
    SELECT {COLUMNS} FROM jobs
    WHERE {READY} AND (not_before IS NULL OR not_before <= now()) AND number <> ALL(CAST(:but AS bigint[]))
        AND team_id = lane.team AND owner_id = lane.owner AND priority = lane.class
    ORDER BY jobs.queued_at LIMIT :rows
) ready
ORDER BY priority DESC, own_order, queued_at, number LIMIT :rows
"""  # noqa: S608 - constants


class Lanes:
    """The queue of one pass; of each user, priority and shape at most the first ``depth`` jobs.

    A plan ends where it has placed the last of these while ``more`` stand behind it; the next pass goes on. So
    the placements are those of the whole queue, however small the depth.
    """

    def __init__(
        self, session: Session, depth: int = WINDOW, demands: Demands | None = None, also: Collection[int] = ()
    ) -> None:
        """See what there is, and read the jobs that hold reservations, and ``also`` these, wherever they stand."""
        self._session, self._depth = session, depth
        self._kinds = demands or Demands()
        self.lanes = [Lane(*row) for row in session.execute(text(LANES_SQL))]
        first = session.execute(text(HOLDERS_SQL), {"also": list(also)}).all() if self.lanes else []
        self.first = candidates(first, self._kinds.find(session, first), len(first))
        self.seen = [*self.first]  # all that were read so far
        self._shapes: dict[int, dict[bytes, Demand]] = {}  # by team

    def demands(self, team: int) -> Collection[Demand]:
        """All that a team's jobs ask for; when this is asked of one team it will be asked of the others."""
        self._learn(lane.team for lane in self.lanes)
        return self._shapes.get(team, {}).values()

    def _learn(self, teams: Iterable[int]) -> None:
        if not (new := set(teams) - self._shapes.keys()):
            return
        self._shapes |= {team: {} for team in new}
        rows = self._session.execute(text(SHAPES_SQL), {"teams": sorted(new)}).all()
        known = self._kinds.find(self._session, rows)
        for team, shape, _ in rows:
            self._shapes[team][shape] = known[shape, team]

    def read(self, lanes: Sequence[Lane]) -> list[Candidate]:
        """The first jobs of each shape in these lanes."""
        self._learn(lane.team for lane in lanes)
        wanted = {
            "teams": [lane.team for lane in lanes],
            "users": [lane.user for lane in lanes],
            "priorities": [lane.priority for lane in lanes],
            "shapes": [_listed(self._shapes[lane.team]) for lane in lanes],
        }
        return self._read(JOBS_SQL, self._depth, wanted)

    def behind(self, job: Candidate) -> list[Candidate]:
        """The jobs that stand behind one that was the last that was read of its user, class and demand."""
        shapes = [shape for shape, demand in self._shapes[job.team].items() if demand == job.demand]
        wanted = {
            "teams": [job.team],
            "users": [job.user],
            "priorities": [job.priority],
            "shapes": [_listed(shapes)],
            "own_order": job.own_order,
            "number": job.number,
        }
        return self._read(BEHIND_SQL, WINDOW, wanted)

    def next(self, team: int | None, most: int, but: Collection[int]) -> list[Candidate]:
        """So many jobs of a team, or of all, of the highest class first, but these; no turn has come to them yet."""
        lanes = [lane for lane in self.lanes if team in {None, lane.team}]
        lanes = sorted(lanes, key=lambda lane: (-lane.priority, lane.oldest_at))[:most]
        wanted = {
            "teams": [lane.team for lane in lanes],
            "users": [lane.user for lane in lanes],
            "priorities": [lane.priority for lane in lanes],
            "but": list(but),
            "rows": most,
        }
        rows = self._session.execute(text(NEXT_SQL), wanted).all()
        return candidates(rows, self._kinds.find(self._session, rows), len(rows))

    def _read(self, statement: str, depth: int, wanted: dict[str, object]) -> list[Candidate]:
        given = wanted | {"held": [job.number for job in self.first], "rows": depth + 1}
        rows = self._session.execute(text(statement), given).all()
        known = {(shape, team): demand for team, found in self._shapes.items() for shape, demand in found.items()}
        found = candidates(rows, known, depth)
        self.seen += found
        return found


def _listed(shapes: Iterable[bytes]) -> str:
    return ",".join(shape.hex() for shape in shapes)
