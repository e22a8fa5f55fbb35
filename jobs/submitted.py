"""What was submitted in the last days, as the database knows it: such jobs will come again."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from sqlalchemy import text
from sqlalchemy.orm import Session

from stoker.jobs.arrivals import DAYS, Day, past_days
from stoker.jobs.durations import SPEC
from stoker.jobs.fit import Demand
from stoker.jobs.forecast import Durations, Like, like
from stoker.jobs.situation import Candidate
from stoker.jobs.window import demand_of

MOST = 5000  # jobs that are looked at; days before those count as not known
GOOD_SECONDS = 600.0  # how long what was read is good
# Who thought better of it before it started took nobody's place.
_SUBMITTED = text(f"""
SELECT j.number, j.team_id, j.owner_id, j.priority, extract(epoch FROM j.created_at)::float8 AS created_at, {SPEC},
    j.created_at > now() - interval '{DAYS} days' AND (j.state <> 'cancelled' OR j.started_at IS NOT NULL) AS counts
FROM jobs j ORDER BY j.number DESC LIMIT {MOST}
""")  # noqa: S608 - constants


@dataclass(frozen=True, slots=True)
class Submitted:
    """The latest jobs."""

    jobs: tuple[tuple[Candidate, Like], ...] = ()
    since: float | None = None  # seconds since 1970, from when on these are all; None: there were none

    def days(self, known: Durations, now: float) -> list[Day]:
        """What each of the last days brought, and how long it runs as far as that is known."""
        lasts = cache(known.expected)
        return past_days(((job, lasts(one)) for job, one in self.jobs), now, now if self.since is None else self.since)


class RecentlySubmitted:
    """The latest jobs; read again when some minutes have passed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._read_at = clock, 0.0
        self._found: Submitted | None = None

    def read(self, session: Session) -> Submitted:
        """What was submitted, as of some minutes ago at most."""
        if self._found is None or self._clock() - self._read_at >= GOOD_SECONDS:
            self._read_at = self._clock()
            self._found = submitted(session)
        return self._found


def submitted(session: Session) -> Submitted:
    """Read what was submitted in the last days."""
    rows = session.execute(_SUBMITTED).all()
    same: dict[Demand, Demand] = {}  # one object for equal ones: the planner tells them quickly
    jobs = tuple(
        (
            Candidate(
                row.number,
                row.priority,
                same.setdefault(demand := demand_of(row.spec["resources"], None, row.team_id), demand),
                team=row.team_id,
                user=row.owner_id,
                queued_at=row.created_at,
                time_limit_seconds=row.spec["time_limit"],
            ),
            like(row.spec, owner_id=row.owner_id, team_id=row.team_id),
        )
        for row in rows
        if row.counts
    )
    return Submitted(jobs, rows[-1].created_at if rows else None)
