"""Who has to make room, when a job may ask for it: those whose leaving costs least. Pure."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from stoker.jobs.fit import Node
from stoker.jobs.ledger import Ledger
from stoker.jobs.openings import Opening, fewest, opening
from stoker.jobs.policy import Policy
from stoker.jobs.shares import cost
from stoker.jobs.situation import URGENT, Candidate, Preemption, Running

Sort = tuple[int, int, frozenset[str]]
Price = tuple[bool, float]  # whether somebody urgent has to leave, and what is computed again
Able = tuple[Sequence[Running], list[Running], Price]  # of a worker: all, who may be asked, the cheapest


@dataclass(frozen=True, slots=True)
class Claim:
    """What a job is entitled to take from others."""

    job: Candidate
    device: str
    pools: Collection[str]  # in which its team's guarantee covers it

    def against(self, running: Running, pool: str, ledger: Ledger) -> bool:
        """Whether the job goes before one that runs in this pool."""
        if running.team == self.job.team:
            return running.priority < self.job.priority and (pool in self.pools or self.job.priority == URGENT)
        if running.number in ledger.guaranteed:
            return False
        return pool in self.pools or (self.job.priority == URGENT and running.priority < URGENT)

    @property
    def sort(self) -> Sort:
        """Claims of one sort go before the same jobs."""
        return (self.job.team, self.job.priority, frozenset(self.pools))

    def anywhere(self) -> bool:
        """Whether it is entitled to anything."""
        return bool(self.pools) or self.job.priority == URGENT


def lost_seconds(running: Running, now: float, policy: Policy) -> float:
    """Device-seconds since the last checkpoint: what is computed again."""
    return cost(running.demand, running.spot.device, policy) * max(0.0, now - running.kept_at)


def can_leave(running: Running, now: float, policy: Policy) -> bool:
    """Whether a job may be asked to make room now."""
    rested = running.preempted_at is None or now - running.preempted_at >= policy.preempt_again_seconds
    return running.claimed and running.leaves_for is None and rested


@dataclass(slots=True)
class Cheapest:
    """Looks for the cheapest set of victims, one worker after another, by their ids."""

    claim: Claim
    ledger: Ledger
    now: float
    policy: Policy
    known: dict[int, Able] = field(default_factory=dict)  # by worker; kept between claims of one sort in one plan
    best: tuple[bool, float, int, int] | None = None  # somebody urgent, cost, how many, worker
    found: Opening | None = None

    def eligible(self, node: Node, running: Collection[Running]) -> list[Running]:
        """Those on a worker that may be asked, the cheapest first."""
        able = [
            one
            for one in running
            if can_leave(one, self.now, self.policy) and self.claim.against(one, node.pool, self.ledger)
        ]
        return sorted(able, key=lambda one: (self._price([one])[:2], one.number))

    def _able(self, node: Node, running: Sequence[Running]) -> Able:
        found = self.known.get(node.id)
        if found is None or found[0] is not running:
            able = self.eligible(node, running)
            found = self.known[node.id] = (running, able, self._price(able[:1]))
        return found

    def _price(self, victims: Collection[Running]) -> Price:
        costs = [lost_seconds(one, self.now, self.policy) for one in victims]
        return any(one.priority == URGENT for one in victims), round(sum(costs), 3)

    def look(self, node: Node, running: Sequence[Running], work: Callable[[Node], Node]) -> None:
        """Look at one worker; keep what it offers if that is the cheapest so far.

        Args:
            node: The worker.
            running: The jobs there; the same list object as long as nothing about them changes.
            work: Gives the worker as the job may count on it; asked only where the worker may be the cheapest.
        """
        _, able, least = self._able(node, running)
        if not able or (self.best is not None and (*least, 1, node.id) > self.best):
            return
        node = work(node)
        demand, device = self.claim.job.demand, self.claim.device
        wide = opening(demand, device, node, able)
        if wide is None:
            return
        narrow = fewest(demand, device, node, wide.leavers)
        price = (*self._price(narrow), len(narrow), node.id)
        if self.best is None or price < self.best:
            self.best, self.found = price, opening(demand, device, node, narrow)


def preemptions(job: Candidate, found: Opening, why: str) -> tuple[Preemption, ...]:
    """The request to each victim."""
    sentence = f"makes room for job {job.number}, {why}; it goes on later from its checkpoint"
    return tuple(Preemption(victim.number, job.number, sentence) for victim in found.leavers)
