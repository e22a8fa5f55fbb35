"""Whose turn it is. Pure.

The order: what a team's guarantee covers; then the class of priority, raised by long waiting; then who holds a
reservation; then the team that has used least for its weight; within it the user who has used least; of that user's
jobs their own order, then the lowest number.
"""

import heapq
from collections.abc import Callable, Collection
from dataclasses import dataclass
from operator import attrgetter

from stoker.jobs.fit import Demand
from stoker.jobs.ledger import Ledger
from stoker.jobs.policy import Policy
from stoker.jobs.situation import HIGH, LOW, URGENT, Candidate, Reservation, Situation

Key = tuple[int, int, int, int]  # team, user, priority, and which demand: such jobs keep their order
Turn = tuple[int, int, int, float, int]  # guaranteed first; class; holders of reservations first; share; number
Head = tuple[int, int, Key]  # own order, number
OWN_ORDER = attrgetter("own_order", "number")


def standing(job: Candidate, now: float, policy: Policy) -> int:
    """The class of priority in which a job goes: its own, and one higher for each time that it waited long."""
    if job.priority >= HIGH:
        return job.priority
    return min(HIGH, job.priority + int((now - job.queued_at) // policy.raise_seconds))


@dataclass(slots=True)
class Lane:
    """A team's jobs of one class: for each user the first of each key, as heaps."""

    users: dict[int, list[Head]]


class Line:
    """The queue of one plan."""

    def __init__(self, situation: Situation, ledger: Ledger, guaranteed: Callable[[Candidate], bool]) -> None:
        """``guaranteed`` says whether a job would stay within its team's guarantee."""
        self._now, self._policy = situation.now, situation.policy
        self._ledger, self._guaranteed = ledger, guaranteed
        self._demands: dict[Demand, int] = {}
        self._known: dict[int, int] = {}  # by identity: hashing a demand is slow, and most are shared
        self._rest: dict[Key, list[Candidate]] = {}  # the first one last
        self._lanes: dict[int, list[Lane]] = {}
        self._best: dict[int, tuple[Turn, Candidate] | None] = {}
        self._holders: dict[int, tuple[Candidate, Reservation]] = {}
        held = {reservation.number: reservation for reservation in situation.reservations}
        for job in situation.queue:
            if job.number in held:
                self._holders[job.number] = (job, held[job.number])
            else:
                self._rest.setdefault(self.key(job), []).append(job)
        for key, jobs in self._rest.items():
            jobs.sort(key=OWN_ORDER, reverse=True)
            self._enter(key)

    def key(self, job: Candidate) -> Key:
        """What jobs have in common that never pass each other."""
        demand = self._known.get(id(job.demand))
        if demand is None:
            demand = self._known[id(job.demand)] = self._demands.setdefault(job.demand, len(self._demands))
        return (job.team, job.user, job.priority, demand)

    def _enter(self, key: Key) -> None:
        """The first job of a key takes its place in the line."""
        if rest := self._rest[key]:
            job = rest[-1]
            if (lanes := self._lanes.get(job.team)) is None:
                lanes = self._lanes[job.team] = [Lane({}) for _ in range(URGENT + 1)]
            heads = lanes[standing(job, self._now, self._policy)].users.setdefault(job.user, [])
            heapq.heappush(heads, (job.own_order, job.number, key))
            self._best.pop(job.team, None)

    @property
    def holders(self) -> Collection[int]:
        """The jobs with a reservation whose turn has not come."""
        return self._holders.keys()

    @property
    def demands(self) -> Collection[Demand]:
        """All that is asked for."""
        return self._demands.keys()

    def next(self) -> Candidate | None:
        """The job whose turn it is; None: no more."""
        turns = [found for team in self._lanes if (found := self._first(team)) is not None]
        turns += [(self._turn(job, reservation), job) for job, reservation in self._holders.values()]
        return min(turns, key=lambda found: found[0])[1] if turns else None

    def _first(self, team: int) -> tuple[Turn, Candidate] | None:
        if team not in self._best:
            self._best[team] = None
            for lane in reversed(self._lanes[team]):
                if lane.users:
                    user = min(lane.users, key=lambda user: (self._ledger.user_share(user), lane.users[user][0]))
                    job = self._rest[lane.users[user][0][2]][-1]
                    self._best[team] = (self._turn(job, None), job)
                    break
        return self._best[team]

    def _turn(self, job: Candidate, reservation: Reservation | None) -> Turn:
        level = standing(job, self._now, self._policy)
        covered = 0 if level > LOW and self._guaranteed(job) else 1
        if reservation is not None:
            return (covered, -level, 0, reservation.made_at, job.number)
        return (covered, -level, 1, self._ledger.team_share(job.team), job.number)

    def take(self, job: Candidate) -> bool:
        """A job leaves the line for its place; False: more of its like stand behind the window, so the plan ends."""
        if self._holders.pop(job.number, None) is not None:
            self._best.pop(job.team, None)
            return True
        key = self._leave(job)
        self._rest[key].pop()
        self._enter(key)
        return not job.more

    def skip(self, job: Candidate) -> None:
        """A job cannot start in this plan, nor can those of its key behind it."""
        if self._holders.pop(job.number, None) is None:
            self._leave(job)

    def holder(self, number: int) -> Candidate | None:
        """The job that holds a reservation, if it is in the line."""
        found = self._holders.get(number)
        return found[0] if found else None

    def touch(self, team: int) -> None:
        """A team's accounts have changed."""
        self._best.pop(team, None)

    def release(self, number: int) -> None:
        """A reservation has lapsed: its holder takes its turn like everybody else."""
        job, _ = self._holders.pop(number)
        key = self.key(job)
        rest = self._rest.setdefault(key, [])
        if rest:
            self._leave(rest[-1])
        rest.append(job)
        rest.sort(key=OWN_ORDER, reverse=True)
        self._enter(key)

    def _leave(self, job: Candidate) -> Key:
        key = self.key(job)
        lane = self._lanes[job.team][standing(job, self._now, self._policy)]
        heads = lane.users[job.user]
        heads.remove((job.own_order, job.number, key))
        heapq.heapify(heads)
        if not heads:
            del lane.users[job.user]
        self._best.pop(job.team, None)
        return key
