"""A fleet that lives in memory: jobs come, run and end, and the planner decides; every step is checked."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from stoker.jobs.fit import Demand, Node, Unit
from stoker.jobs.placement import LeastLoss
from stoker.jobs.planner import Plan, plan
from stoker.jobs.policy import Policy
from stoker.jobs.shares import Quota, Shares, TeamShare
from stoker.jobs.situation import LOW, URGENT, Candidate, LimitsOnly, Reservation, Running, Situation, Span

GB = 10**9
MINUTE = 60.0


def worker(number: int, gpus: int, cpus: int = 16, *, pool: str = "default", fractions: bool = False) -> Node:
    """An idle worker."""
    units = tuple(Unit(100 * number + place, "A", 16 * GB, 1000, 1000) for place in range(gpus))
    sizes = (cpus * 1000, cpus * 1000, 64 * GB, 64 * GB, 16, 16)
    return Node(number, f"node-{number}", "x", *sizes, units, pool, fractions)


def gpus(count: int = 1, cpus: int = 1, share: int = 1000, team: int | None = None) -> Demand:
    """A job for GPUs."""
    return Demand(cpus * 1000, GB, "gpu", count, gpu_milli=share, team=team)


class Exact:
    """Estimates that are right: each job takes what it takes, on any device."""

    def __init__(self, seconds: dict[int, float]) -> None:
        self.seconds = seconds

    def of(self, job: Candidate, device: str) -> Span | None:  # noqa: ARG002
        """From start to end."""
        found = self.seconds.get(job.number)
        return None if found is None else Span(found, found, found)

    def left(self, running: Running, now: float) -> Span | None:
        """From now to the end."""
        found = self.seconds.get(running.number)
        left = None if found is None else max(0.0, running.placed_at + found - now)
        return None if left is None else Span(left, left, left)


@dataclass
class Fleet:
    """Workers, jobs and teams; ``step`` lets the planner decide once and carries out what it decided."""

    nodes: dict[int, Node]
    teams: dict[int, TeamShare] = field(default_factory=dict)
    policy: Policy = field(default_factory=Policy)
    now: float = 0.0
    queue: dict[int, Candidate] = field(default_factory=dict)
    running: dict[int, Running] = field(default_factory=dict)
    reservations: tuple[Reservation, ...] = ()
    seconds: dict[int, float] = field(default_factory=dict)  # how long each job takes, where that is known
    draining: set[int] = field(default_factory=set)
    asked: dict[int, int] = field(default_factory=dict)  # victim -> the job that gets the room
    last: Plan | None = None
    _numbers: int = 0

    @classmethod
    def of(cls, nodes: Iterable[Node], **quotas: int) -> "Fleet":
        """A fleet with a team for each of ``quotas``: its guaranteed GPUs in the pool ``default``."""
        teams = {
            number: TeamShare(name, quotas={"default": Quota(gpus_milli=1000 * count)} if count else {})
            for number, (name, count) in enumerate(quotas.items(), 1)
        }
        return cls({node.id: node for node in nodes}, teams)

    def submit(
        self, demand: Demand, team: int = 1, *, priority: int = 1, seconds: float | None = None, user: int | None = None
    ) -> int:
        """Add a job; returns its number."""
        self._numbers += 1
        number = self._numbers
        self.queue[number] = Candidate(
            number, priority, demand, team, 10 * team if user is None else user, queued_at=self.now
        )
        if seconds is not None:
            self.seconds[number] = seconds
        return number

    def situation(self) -> Situation:
        """What the planner is told now."""
        return Situation(
            self.now,
            list(self.queue.values()),
            [node for node in self.nodes.values() if node.id not in self.draining],
            list(self.running.values()),
            self.reservations,
            Shares(self.teams),
            self.policy,
            Exact(self.seconds) if self.seconds else LimitsOnly(),
        )

    def step(self) -> Plan:
        """Plan once, check what was decided, and carry it out."""
        before = self.situation()
        made = self.last = plan(before, LeastLoss())
        for preemption in made.preemptions:
            self._ask(preemption.number, preemption.beneficiary)
        for placement in made.placements:
            job, node = self.queue.pop(placement.number), self.nodes[placement.spot.node]
            assert node.id not in self.draining
            self.nodes[node.id] = left = node.after(placement.demand, placement.spot)
            assert min([left.cpus_free_milli, left.memory_free_bytes, left.attempts_free]) >= 0  # I2
            assert min([0, *(unit.free_milli for unit in left.units)]) == 0
            assert job.number not in self.running  # I1
            self.running[job.number] = Running(
                job.number, job.priority, job.demand, placement.spot, job.team, job.user, self.now, self.now
            )
        self.reservations = made.reservations
        assert {one.number for one in self.reservations} <= self.queue.keys()
        assert len(self.reservations) <= max(self.policy.reservations, len(self.asked) + self.policy.reservations)
        return made

    def _ask(self, victim: int, beneficiary: int) -> None:
        running, job = self.running[victim], self.queue[beneficiary]
        assert running.leaves_for is None
        assert running.preempted_at is None or self.now - running.preempted_at >= self.policy.preempt_again_seconds
        assert job.priority > LOW
        assert job.priority == URGENT or self.teams[job.team].quotas  # nobody else is entitled to anything
        self.running[victim] = replace(running, leaves_for=beneficiary)
        self.asked[victim] = beneficiary

    def leave(self, number: int, *, requeue: bool = False) -> None:
        """A job ends, or is taken off and queued again."""
        running = self.running.pop(number)
        self.asked.pop(number, None)
        node = self.nodes[running.spot.node]
        self.nodes[node.id] = node.without(running.demand, running.spot)
        if requeue:
            self.queue[number] = Candidate(
                number, running.priority, running.demand, running.team, running.user, queued_at=self.now
            )

    def obey(self) -> list[tuple[int, int]]:
        """Those who were asked leave; returns who left, and for whom."""
        left = [(victim, running.leaves_for or 0) for victim, running in self.running.items() if running.leaves_for]
        for victim, _ in left:
            self.leave(victim, requeue=True)
        return left

    def reason(self, number: int) -> str:
        """The code of why a job waits."""
        assert self.last is not None
        return self.last.reasons[number].code
