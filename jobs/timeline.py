"""The planner in simulated time: what happens when jobs take as long as they are thought to. Pure."""

import heapq
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Protocol

from stoker.jobs.fit import Spot
from stoker.jobs.placement import Rule
from stoker.jobs.planner import plan
from stoker.jobs.shares import Shares, cost, decayed
from stoker.jobs.situation import Candidate, Placement, Preemption, Reservation, Running, Situation
from stoker.jobs.walk import Walk

LEAVE_SECONDS = 10.0  # from the request to make room to the room: a checkpoint, and the end of a process


class Decisions(Protocol):
    """What a planner decided."""

    @property
    def placements(self) -> Sequence[Placement]:
        """Jobs that start."""

    @property
    def preemptions(self) -> Sequence[Preemption]:
        """Jobs that make room."""

    @property
    def reservations(self) -> Sequence[Reservation]:
        """Places that are promised from now on."""


Planner = Callable[[Situation, Rule], Decisions]
Lasts = Callable[[Candidate, str], float]  # seconds that a job runs on cpu or gpu from its start to its end
Lost = Callable[[Running, float], float]  # seconds of work that a victim has to do again


@dataclass(frozen=True, slots=True)
class Stay:
    """A job was on a worker for a while."""

    number: int
    spot: Spot
    from_seconds: float
    to_seconds: float


class Timeline:
    """Workers and jobs from one moment on. ``step`` goes to the next thing that happens, and plans."""

    def __init__(
        self,
        situation: Situation,
        rule: Rule,
        lasts: Lasts,
        *,
        left: Mapping[int, float] | None = None,
        planner: Planner = plan,
        kept_every_seconds: float | None = None,
        lost: Lost = lambda _running, _now: 0.0,
        walk: Walk | None = None,
    ) -> None:
        """Start from a situation.

        Args:
            situation: As of now.
            rule: Of placement.
            lasts: How long a job runs, as nobody knows it beforehand.
            left: Seconds that each running job goes on.
            planner: Decides.
            kept_every_seconds: Between the checkpoints of a job that starts from here on; None: it writes none.
            lost: What preemption costs; victims write a checkpoint before they leave, so nothing unless told.
            walk: The part of the queue that is not read yet.
        """
        self.now = situation.now
        self.waiting = {job.number: job for job in situation.queue}
        self.running = {job.number: job for job in situation.running}
        self.nodes = {node.id: node for node in situation.fleet}
        self.reservations = tuple(situation.reservations)
        self.first_starts: dict[int, float] = {}
        self.first_spots: dict[int, Spot] = {}
        self.ends: dict[int, float] = {}
        self.ends_at: dict[int, float] = {}  # of what runs, as nobody knows it
        self.stays: list[Stay] = []
        self._situation, self._rule, self._lasts, self._planner = situation, rule, lasts, planner
        self._kept_every, self._lost, self._walk = kept_every_seconds, lost, walk
        self._further = False  # the last plan ended before the queue did
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._jobs: dict[int, Candidate] = {}  # those that have started
        self._share_left: dict[int, float] = {}  # of the work of a job that was stopped
        self._preempted_at: dict[int, float] = {}
        self._team_used = {team: (share.used, self.now) for team, share in situation.shares.teams.items()}
        self._user_used = {user: (used, self.now) for user, used in situation.shares.users.items()}
        for job in situation.running:
            seconds = (left or {}).get(job.number, 0.0)
            self.ends_at[job.number] = self.now + seconds
            self.at(self.now + seconds, self._ending(job.number, job.placed_at))
            if job.leaves_for is not None:
                self.at(self.now + LEAVE_SECONDS, self._leaving(job.number, job.placed_at))

    def at(self, seconds: float, happens: Callable[[], None]) -> None:
        """Let something happen at a time."""
        heapq.heappush(self._events, (max(seconds, self.now), next(self._order), happens))

    def submit(self, job: Candidate) -> None:
        """A job enters the queue now."""
        self.waiting[job.number] = replace(job, queued_at=self.now)

    @property
    def started(self) -> Collection[Candidate]:
        """The jobs that have started, in the order in which they first did."""
        return self._jobs.values()

    def step(self, grain_seconds: float = 0.0) -> bool:
        """Go to the next thing that happens, with all within ``grain_seconds`` after it, and plan.

        False: nothing happens any more. Where a plan ended with what was read of the queue, that is to plan again.
        """
        if self._further:
            self.plan()
            return True
        if not self._events:
            return False
        until = self._events[0][0] + grain_seconds
        while self._events and self._events[0][0] <= until:
            at, _, happens = heapq.heappop(self._events)
            self.now = at
            happens()
        self.plan()
        return True

    def plan(self) -> None:
        """Let the planner decide, and do so."""
        walk, self._further = self._walk, False
        if not self.waiting and not self.reservations and not (walk and walk.lanes):
            return
        made = self._planner(self.situation(), self._rule)
        self._read()
        self.reservations = tuple(made.reservations)
        for reservation in made.reservations:
            self._follow(reservation.number)
        for placement in made.placements:
            job = self._start(placement)
            if walk and job.more:
                walk.follow(job)
                self._further = True
        for preemption in made.preemptions:
            running = self.running[preemption.number]
            self.running[preemption.number] = replace(running, leaves_for=preemption.beneficiary)
            self.at(self.now + LEAVE_SECONDS, self._leaving(running.number, running.placed_at))
        self._read()

    def _follow(self, number: int) -> None:
        """Read on behind a job that holds a place: it stands apart from its like, who are not to pass each other."""
        job = self.waiting.get(number)
        if self._walk and job and job.more:
            self._walk.follow(job)
            self.waiting[number] = replace(job, more=False)

    def _read(self) -> None:
        """What was read of the queue waits from now on."""
        if self._walk:
            self.waiting |= {job.number: job for job in self._walk.fresh()}

    def situation(self) -> Situation:
        """What the planner is told now."""
        return replace(
            self._situation,
            now=self.now,
            queue=list(self.waiting.values()),
            fleet=list(self.nodes.values()),
            running=[self._kept(running) for running in self.running.values()],
            reservations=self.reservations,
            shares=self._shares(),
            unread=self._walk,
        )

    def _kept(self, running: Running) -> Running:
        if self._kept_every is None or running.number not in self._jobs:
            return running
        done = self.now - running.placed_at
        return replace(running, kept_at=self.now - done % self._kept_every)

    def _shares(self) -> Shares:
        shares = self._situation.shares
        teams = {team: replace(share, used=self._used(self._team_used, team)) for team, share in shares.teams.items()}
        return Shares(teams, {user: self._used(self._user_used, user) for user in self._user_used})

    def _used(self, accounts: Mapping[int, tuple[float, float]], who: int) -> float:
        used, at = accounts.get(who, (0.0, self.now))
        return float(used * 0.5 ** ((self.now - at) / self._situation.policy.half_life_seconds))

    def _start(self, placement: Placement) -> Candidate:
        job = self.waiting.pop(placement.number)
        self._jobs[job.number] = replace(job, more=False)
        self.first_starts.setdefault(job.number, self.now)
        self.first_spots.setdefault(job.number, placement.spot)
        node = self.nodes[placement.spot.node]
        self.nodes[node.id] = node.after(job.demand, placement.spot)
        self.running[job.number] = Running(
            job.number,
            job.priority,
            job.demand,
            placement.spot,
            team=job.team,
            user=job.user,
            placed_at=self.now,
            kept_at=self.now,
            preempted_at=self._preempted_at.get(job.number),
            time_limit_seconds=job.time_limit_seconds,
        )
        seconds = self._lasts(job, placement.spot.device) * self._share_left.get(job.number, 1.0)
        self.ends_at[job.number] = self.now + seconds
        self.at(self.now + seconds, self._ending(job.number, self.now))
        return job

    def _ending(self, number: int, placed_at: float) -> Callable[[], None]:
        return lambda: self._end(number, placed_at)

    def _leaving(self, number: int, placed_at: float) -> Callable[[], None]:
        return lambda: self._leave(number, placed_at)

    def _end(self, number: int, placed_at: float) -> None:
        if (running := self.running.get(number)) is not None and running.placed_at == placed_at:
            self._release(running)
            self.ends[number] = self.now

    def _leave(self, number: int, placed_at: float) -> None:
        if (running := self.running.get(number)) is not None and running.placed_at == placed_at:
            self._preempted_at[number] = self.now
            self.stop(number, lost_seconds=self._lost(self._kept(running), self.now))

    def stop(self, number: int, *, lost_seconds: float = 0.0) -> None:
        """Take a running job off its worker and queue it again; so much of its work is to be done again."""
        running = self.running[number]
        self._release(running)
        job = self._jobs.get(number) or _queued(running)
        whole = max(self._lasts(job, running.spot.device), 1.0)
        left = max(0.0, self.ends_at[number] - self.now) + lost_seconds
        self._share_left[number] = min(1.0, left / whole)
        self.submit(job)

    def _release(self, running: Running) -> None:
        del self.running[running.number]
        node = self.nodes.get(running.spot.node)
        if node is not None:
            self.nodes[node.id] = node.without(running.demand, running.spot)
        seconds, policy = self.now - running.placed_at, self._situation.policy
        self.stays.append(Stay(running.number, running.spot, running.placed_at, self.now))
        charge = cost(running.demand, running.spot.device, policy) * decayed(seconds, policy)
        self._team_used[running.team] = (self._used(self._team_used, running.team) + charge, self.now)
        self._user_used[running.user] = (self._used(self._user_used, running.user) + charge, self.now)


def _queued(running: Running) -> Candidate:
    return Candidate(running.number, running.priority, running.demand, team=running.team, user=running.user)
