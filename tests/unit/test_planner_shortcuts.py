"""What makes plans of a large fleet quick decides as the plain way does."""

import random
from collections.abc import Callable, Sequence

import pytest

from stoker.jobs.fit import Demand, Node
from stoker.jobs.placement import Board, LeastLoss
from stoker.jobs.planner import Pass, Plan, plan
from stoker.jobs.shares import Quota, Shares, TeamShare
from stoker.jobs.situation import URGENT, Candidate, Running, Situation
from stoker.jobs.victims import Cheapest
from tests.support.fleets import GB, worker


class Plain(Cheapest):
    """Looks at each worker as if it had seen no other, and remembers nothing."""

    def look(self, node: Node, running: Sequence[Running], work: Callable[[Node], Node]) -> None:
        alone = Cheapest(self.claim, self.ledger, self.now, self.policy)
        alone.look(node, list(running), work)
        if alone.best is not None and (self.best is None or alone.best < self.best):
            self.best, self.found = alone.best, alone.found


def situation(seed: int) -> Situation:
    """A full fleet of twelve workers, three teams, sixty queued jobs; every third fleet knows an urgent one."""
    chance = random.Random(seed)
    demands = [Demand(1000 * gpus, GB, "gpu", gpus) for gpus in (1, 1, 2, 4)]
    board, running = Board([worker(number, 4) for number in range(1, 13)], LeastLoss()), list[Running]()
    for number in range(1, 60):
        demand = chance.choice(demands)
        if (spot := board.choose(demand)) is not None:
            board.place(demand, spot)
            kept = float(chance.choice((0, 0, 500, 900)))
            running.append(Running(number, chance.choice((0, 1, 2)), demand, spot, number % 3, number % 6, 0.0, kept))
    queue = [
        Candidate(number, chance.choice((0, 1, 1, 2)), chance.choice(demands), number % 3, number % 6)
        for number in range(100, 160)
    ]
    if seed % 3 == 0:
        queue.append(Candidate(99, URGENT, demands[0], 1, 1))
    guaranteed = [{"default": Quota(gpus_milli=chance.choice((0, 14_000, 24_000)))} for _ in range(2)]
    teams = {team: TeamShare(f"team-{team}", quotas=quotas) for team, quotas in enumerate([*guaranteed, {}])}
    return Situation(1000.0, queue, board.nodes, running, shares=Shares(teams))


def told(made: Plan) -> tuple[object, ...]:
    """All that a plan says."""
    return (made.placements, made.preemptions, made.reservations, made.complete, made.reasons)


def test_victims_are_those_that_a_search_without_memory_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = [plan(situation(seed), LeastLoss()) for seed in range(24)]
    monkeypatch.setattr("stoker.jobs.planner.Cheapest", Plain)
    assert [told(made) for made in quick] == [told(plan(situation(seed), LeastLoss())) for seed in range(24)]
    assert sum(len(made.preemptions) for made in quick) > 24


def test_a_plan_that_ends_early_is_the_one_that_looks_at_every_job(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, looked = 0, list[Plan]()
    for seed in range(24):
        made = plan(situation(seed), LeastLoss())
        ended += made.made.line.next() is not None
        looked.append(made)
    monkeypatch.setattr(Pass, "_exhausted", lambda _: False)
    assert [told(made) for made in looked] == [told(plan(situation(seed), LeastLoss())) for seed in range(24)]
    assert ended
