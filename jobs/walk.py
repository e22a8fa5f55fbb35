"""A long queue in simulated time: each run walks along it as far as turns come, and all use what one has read. Pure."""

from collections.abc import Collection, Sequence
from typing import Protocol

from stoker.jobs.fit import Demand
from stoker.jobs.situation import Candidate, Lane, Unread


class Source(Unread, Protocol):
    """A queue that is read as it is wanted."""

    def behind(self, job: Candidate, /) -> Sequence[Candidate]:
        """The jobs behind the last one that was read of its user, class and demand."""


class Kept:
    """What was read of a queue."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.lanes = tuple(source.lanes)
        self._read: dict[Lane, list[Candidate]] = {}
        self._behind: dict[int, Sequence[Candidate]] = {}

    def begin(self, places: Collection[tuple[int, int, int]]) -> list[Candidate]:
        """Read the first jobs of these teams, users and classes now; no walk comes to them a second time."""
        lanes = [lane for lane in self.lanes if (lane.team, lane.user, lane.priority) in places]
        self.lanes = tuple(lane for lane in self.lanes if lane not in lanes)
        return self.read(lanes)

    def demands(self, team: int) -> Collection[Demand]:
        """All that a team's jobs ask for, and maybe more."""
        return self._source.demands(team)

    def read(self, lanes: Sequence[Lane]) -> list[Candidate]:
        """The first jobs of each demand in these lanes."""
        if new := [lane for lane in lanes if lane not in self._read]:
            self._read |= {lane: [] for lane in new}
            places = {(lane.team, lane.user, lane.priority): lane for lane in new}
            for job in self._source.read(new):
                self._read[places[job.team, job.user, job.priority]].append(job)
        return [job for lane in lanes for job in self._read[lane]]

    def behind(self, job: Candidate) -> Sequence[Candidate]:
        """The jobs behind the last one that was read of its user, class and demand."""
        if job.number not in self._behind:
            self._behind[job.number] = self._source.behind(job)
        return self._behind[job.number]

    def walk(self) -> "Walk":
        """Begin at the front."""
        return Walk(self)


class Walk:
    """One run along the queue: an ``Unread`` from which lanes go as they are read."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self.lanes: tuple[Lane, ...] = kept.lanes
        self._seen: set[int] = set()
        self._fresh: list[Candidate] = []

    def demands(self, team: int) -> Collection[Demand]:
        """All that a team's jobs ask for, and maybe more."""
        return self._kept.demands(team)

    def read(self, lanes: Sequence[Lane]) -> list[Candidate]:
        """The first jobs of each demand in these lanes."""
        gone = set(lanes)
        self.lanes = tuple(lane for lane in self.lanes if lane not in gone)
        return self._take(self._kept.read(lanes))

    def follow(self, job: Candidate) -> None:
        """Read on behind a job that was taken, if it was the last one that was read of its like."""
        if job.more:
            self._take(self._kept.behind(job))

    def _take(self, jobs: Sequence[Candidate]) -> list[Candidate]:
        new = [job for job in jobs if job.number not in self._seen]  # two shapes may ask for the same
        self._seen.update(job.number for job in new)
        self._fresh += new
        return new

    def fresh(self) -> list[Candidate]:
        """What was read since this was asked last."""
        found, self._fresh = self._fresh, []
        return found
