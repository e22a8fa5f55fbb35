"""Whose turn it is. Pure.

The order: what a team's guarantee covers; then the class of priority, raised by long waiting; then who holds a
reservation; then the team that has used least for its weight; within it the user who has used least; of that user's
jobs their own order, then the lowest number.

A team that has used more than its part goes before others in no higher class than one of its jobs asked for: waiting
raises these jobs only among each other.
"""

import heapq
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from itertools import groupby
from operator import attrgetter, itemgetter

from stoker.jobs.fit import Demand
from stoker.jobs.ledger import Ledger
from stoker.jobs.policy import Policy
from stoker.jobs.situation import HIGH, LOW, URGENT, Candidate, Lane, Reservation, Situation

Key = tuple[int, int, int, int]  # team, user, priority, and which demand: such jobs keep their order
Turn = tuple[int, int, int, float, int]  # guaranteed first; class; holders of reservations first; share; number
Head = tuple[int, int, Key]  # own order, number
OWN_ORDER = attrgetter("own_order", "number")


def raised(priority: int, waited_seconds: float, policy: Policy) -> int:
    """The class in which a job goes that may be raised: one higher for each time that it waited long."""
    return priority if priority >= HIGH else min(HIGH, priority + int(waited_seconds // policy.raise_seconds))


Users = dict[int, list[Head]]  # of a team and class: for each user the first job of each key, as heaps


class Line:
    """The queue of one plan."""

    def __init__(self, situation: Situation, ledger: Ledger, guaranteed: Callable[[Candidate], bool]) -> None:
        """``guaranteed`` says whether a job would stay within its team's guarantee."""
        self._situation, self._now, self._policy = situation, situation.now, situation.policy
        self._ledger, self._guaranteed = ledger, guaranteed
        self.emptied = 0  # how often the last of a user's jobs of a class was taken or skipped
        self._demands: dict[Demand, int] = {}
        self._known: dict[int, int] = {}  # by identity: hashing a demand is slow, and most are shared
        self._rest: dict[Key, list[Candidate]] = {}  # the first one last
        self._oldest: dict[int, float] = {}  # where one behind a job has waited longer: since when
        self._classes: dict[int, list[Users]] = {}  # by team: low to urgent, as waiting raised them
        self._asked: dict[int, list[int]] = {}  # by team: how many holders and first jobs asked for each class
        self._unread: dict[int, list[tuple[int, Lane]]] = {}  # by team, the class to which one is raised, falling
        self._best: dict[int, tuple[Turn, Candidate] | None] = {}
        self._holders: dict[int, tuple[Candidate, Reservation]] = {}
        lanes_unread = situation.unread.lanes if situation.unread else ()
        self._modest = ledger.modest({job.team for job in situation.queue} | {lane.team for lane in lanes_unread})
        held = {reservation.number: reservation for reservation in situation.reservations}
        for job in situation.queue:
            if job.number in held:
                self._holders[job.number] = (job, held[job.number])
                self._ask(job, 1)
            else:
                self._rest.setdefault(self.key(job), []).append(job)
        for key, jobs in self._rest.items():
            self._sort(jobs)
            self._enter(key)
        for lane in lanes_unread:
            highest = raised(lane.priority, self._now - lane.oldest_at, self._policy)
            self._unread.setdefault(lane.team, []).append((highest, lane))
            self._open(lane.team)
        for lanes in self._unread.values():
            lanes.sort(key=itemgetter(0), reverse=True)

    def _sort(self, jobs: list[Candidate]) -> None:
        """Order jobs of one key. One counts as old as the oldest behind it: what made room queues anew before them."""
        jobs.sort(key=OWN_ORDER, reverse=True)
        oldest = self._now
        for job in jobs:
            if job.queued_at > oldest:
                self._oldest[job.number] = oldest
            oldest = min(oldest, job.queued_at)

    def _raised(self, job: Candidate) -> int:
        """The class in which a job goes among those of its team."""
        since = self._oldest.get(job.number, job.queued_at)
        return raised(job.priority, self._now - since, self._policy)

    def standing(self, job: Candidate) -> int:
        """The class in which a job goes among those of all teams."""
        return min(self._raised(job), self._cap(job.team))

    def _cap(self, team: int) -> int:
        """The highest class in which a team goes before others: where it has used more than its part, as asked for."""
        return URGENT if team in self._modest else self._asks(team)

    def _asks(self, team: int) -> int:
        asked = self._asked.get(team, ())
        return max((level for level, count in enumerate(asked) if count), default=LOW)

    def _ask(self, job: Candidate, count: int) -> None:
        self._asked.setdefault(job.team, [0] * (URGENT + 1))[job.priority] += count

    def key(self, job: Candidate) -> Key:
        """What jobs have in common that never pass each other."""
        demand = self._known.get(id(job.demand))
        if demand is None:
            demand = self._known[id(job.demand)] = self._demands.setdefault(job.demand, len(self._demands))
        return (job.team, job.user, job.priority, demand)

    def _open(self, team: int) -> list[Users]:
        return self._classes.setdefault(team, [{} for _ in range(URGENT + 1)])

    def _enter(self, key: Key) -> None:
        """The first job of a key takes its place in the line."""
        if rest := self._rest[key]:
            job = rest[-1]
            users = (self._classes.get(job.team) or self._open(job.team))[self._raised(job)]
            self._ask(job, 1)
            heapq.heappush(users.setdefault(job.user, []), (job.own_order, job.number, key))
            self._best.pop(job.team, None)

    @property
    def holders(self) -> Collection[int]:
        """The jobs with a reservation whose turn has not come."""
        return self._holders.keys()

    @property
    def highest(self) -> dict[int, tuple[int, int]]:
        """The teams that may have jobs in the line; the highest class in which these go, and that they asked for."""
        found = {team: (self._highest(team), self._may_ask(team)) for team in self._classes}
        return {team: highest for team, highest in found.items() if highest[0] >= LOW}

    def _highest(self, team: int) -> int:
        unread = self._unread.get(team)
        least = unread[0][0] if unread else LOW - 1
        highest = next((level for level in range(URGENT, least, -1) if self._classes[team][level]), least)
        return highest if team in self._modest else min(highest, self._may_ask(team))

    def _may_ask(self, team: int) -> int:
        return max([self._asks(team), *(lane.priority for _, lane in self._unread.get(team, ()))])

    def demands(self, team: int) -> Collection[Demand]:
        """All that a team's jobs ask for, and maybe more."""
        unread = self._situation.unread
        return {*self._read_demands.get(team, ()), *(unread.demands(team) if unread else ())}

    @cached_property
    def _read_demands(self) -> dict[int, set[Demand]]:
        found: dict[int, set[Demand]] = {}
        for job in self._situation.queue:
            found.setdefault(job.team, set()).add(job.demand)
        return found

    def drop(self, team: int) -> None:
        """No job of a team can get anything any more."""
        if team not in self._modest and any(job.team == team for job, _ in self._holders.values()):
            return  # in which class these go depends on the others
        del self._classes[team]
        self._unread.pop(team, None)
        self._best.pop(team, None)

    def next(self) -> Candidate | None:
        """The job whose turn it is; None: no more."""
        self._read({job.team for job, _ in self._holders.values() if self._raised(job) > job.priority}, self._lifting)
        turns = [(self._turn(job, reservation), job) for job, reservation in self._holders.values()]
        turns += [found for team in self._classes if (found := self._best.get(team)) is not None]
        best = min(turns, key=itemgetter(0), default=None)
        unknown = [(self._soonest(team), team) for team in self._classes if team not in self._best]
        for soonest, group in groupby(sorted(unknown), key=itemgetter(0)):
            if best is not None and best[0] <= soonest:
                break  # nobody of these teams, nor of those that follow, goes before that one
            teams = [team for _, team in group]
            self._read(teams, lambda team: self._due(team) or self._lifting(team))
            turns = [found for team in teams if (found := self._first(team)) is not None]
            best = min(turns if best is None else [best, *turns], key=itemgetter(0), default=None)
        return best[1] if best else None

    def _soonest(self, team: int) -> Turn:
        """No job of a team that is not read yet goes before this."""
        highest = self._highest(team)
        covered = 0 if highest > LOW and self._ledger.bounded(team) else 1
        return (covered, -highest, 1, self._ledger.team_share(team), 0)

    def _read(self, teams: Collection[int], due_of: Callable[[int], list[Lane]]) -> None:
        """Read lanes of these teams until none is due."""
        unread = self._situation.unread
        while unread and (due := [lane for team in teams for lane in due_of(team)]):
            found: dict[Key, list[Candidate]] = {}
            for job in unread.read(due):
                found.setdefault(self.key(job), []).append(job)
            for key, jobs in found.items():
                self._add(key, jobs)
            for lane in due:
                self._unread[lane.team] = [one for one in self._unread[lane.team] if one[1] is not lane]
            self.emptied += 1

    def _due(self, team: int) -> list[Lane]:
        """The lanes to be read before the first job of a team is known: of the highest class and the first user."""
        ahead = self._unread.get(team, ())
        for level in range(URGENT, LOW - 1, -1):
            lanes = [lane for highest, lane in ahead if highest >= level]
            users = {lane.user for lane in lanes}.union(self._classes[team][level])
            if users:
                least = min(map(self._ledger.user_share, users))
                return [lane for lane in lanes if self._ledger.user_share(lane.user) == least]
        return []

    def _lifting(self, team: int) -> list[Lane]:
        """A lane to be read before it is known in which class a team goes: it may have asked for a higher one."""
        cap = self._cap(team)
        lanes = [lane for _, lane in self._unread.get(team, ()) if lane.priority > cap]
        return [max(lanes, key=attrgetter("priority"))] if lanes else []

    def _add(self, key: Key, jobs: Sequence[Candidate]) -> None:
        rest = self._rest.setdefault(key, [])
        if rest:
            self._leave(rest[-1])
        rest.extend(jobs)
        self._sort(rest)
        self._enter(key)

    def _first(self, team: int) -> tuple[Turn, Candidate] | None:
        if team not in self._best:
            self._best[team] = None
            for users in reversed(self._classes[team]):
                if users:
                    user = min(users, key=lambda user: (self._ledger.user_share(user), users[user][0]))
                    job = self._rest[users[user][0][2]][-1]
                    self._best[team] = (self._turn(job, None), job)
                    break
        return self._best[team]

    def _turn(self, job: Candidate, reservation: Reservation | None) -> Turn:
        level = self.standing(job)
        covered = 0 if level > LOW and self._guaranteed(job) else 1
        if reservation is not None:
            return (covered, -level, 0, reservation.made_at, job.number)
        return (covered, -level, 1, self._ledger.team_share(job.team), job.number)

    def take(self, job: Candidate) -> bool:
        """A job leaves the line for its place; False: more of its like stand behind the window, so the plan ends."""
        if self._release(job):
            return True
        key = self._leave(job)
        self._rest[key].pop()
        self._enter(key)
        return not job.more

    def skip(self, job: Candidate) -> None:
        """A job cannot start in this plan, nor can those of its key behind it."""
        if not self._release(job):
            self._leave(job)

    def _release(self, job: Candidate) -> bool:
        if self._holders.pop(job.number, None) is None:
            return False
        self._ask(job, -1)
        self._best.pop(job.team, None)
        return True

    def holder(self, number: int) -> Candidate | None:
        """The job that holds a reservation, if it is in the line."""
        found = self._holders.get(number)
        return found[0] if found else None

    def touch(self, team: int) -> None:
        """A team's accounts have changed."""
        self._best.pop(team, None)

    def release(self, number: int) -> None:
        """A reservation has lapsed: its holder takes its turn like everybody else."""
        job, _ = self._holders[number]
        self._release(job)
        self._add(self.key(job), [job])

    def _leave(self, job: Candidate) -> Key:
        key = self.key(job)
        users = self._classes[job.team][self._raised(job)]
        self._ask(job, -1)
        heads = users[job.user]
        heads.remove((job.own_order, job.number, key))
        heapq.heapify(heads)
        if not heads:
            del users[job.user]
            self.emptied += 1
        self._best.pop(job.team, None)
        return key
