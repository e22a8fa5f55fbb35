"""What makes plans of a large fleet quick decides as the plain way does."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from stoker.jobs.fit import Demand, Node
from stoker.jobs.placement import Board, LeastLoss
from stoker.jobs.planner import Pass, Plan, plan
from stoker.jobs.shares import Quota, Shares, TeamShare
from stoker.jobs.situation import URGENT, Candidate, Lane, Running, Situation
from stoker.jobs.turns import OWN_ORDER
from stoker.jobs.victims import Cheapest
from tests.support.fleets import GB, Fleet, gpus, worker

DAY = 86400.0


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
        Candidate(
            number, chance.choice((0, 1, 1, 2)), chance.choice(demands), number % 3, number % 6,
            own_order=chance.choice((0, 0, 0, -1)), queued_at=1000.0 - chance.choice((0, 0, 2, 5)) * DAY,
        )
        for number in range(100, 160)
    ]  # fmt: skip
    if seed % 3 == 0:
        queue.append(Candidate(99, URGENT, demands[0], 1, 1))
    guaranteed = [{"default": Quota(gpus_milli=chance.choice((0, 14_000, 24_000)))} for _ in range(2)]
    if seed % 4 == 1:
        guaranteed[0] = {"default": Quota(gpus_limit_milli=chance.choice((4000, 16_000)))}
    teams = {team: TeamShare(f"team-{team}", quotas=quotas) for team, quotas in enumerate([*guaranteed, {}])}
    return Situation(1000.0, queue, board.nodes, running, shares=Shares(teams))


class Lanes:
    """The queue of a situation, read as a pass reads it."""

    def __init__(self, before: Situation) -> None:
        """Sort the jobs."""
        held = {one.number for one in before.reservations}
        self._jobs = sorted((job for job in before.queue if job.number not in held), key=OWN_ORDER)
        lanes = {(job.team, job.user, job.priority) for job in self._jobs}
        self.lanes = [Lane(*lane, min(job.queued_at for job in self._of(lane))) for lane in sorted(lanes)]
        self.unread = set(lanes)

    def _of(self, lane: tuple[int, int, int]) -> list[Candidate]:
        return [job for job in self._jobs if (job.team, job.user, job.priority) == lane]

    def demands(self, team: int) -> set[Demand]:
        """Those of another team too: more is allowed."""
        return {job.demand for job in self._jobs if job.team in {team, 0}}

    def read(self, lanes: Sequence[Lane]) -> list[Candidate]:
        """All jobs of these lanes."""
        wanted = [(lane.team, lane.user, lane.priority) for lane in lanes]
        assert self.unread.issuperset(wanted)  # none is read twice
        self.unread.difference_update(wanted)
        return [job for lane in wanted for job in self._of(lane)]


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


def test_a_queue_that_is_read_as_its_turn_comes_gives_the_plan_of_the_whole_queue() -> None:
    unread = 0
    for seed in range(48):
        before = situation(seed)
        before = replace(before, reservations=plan(before, LeastLoss()).reservations[: seed % 5])
        held = {one.number for one in before.reservations}
        lanes = Lanes(before)
        lazy = replace(before, queue=[job for job in before.queue if job.number in held], unread=lanes)
        found, whole = plan(lazy, LeastLoss()), plan(before, LeastLoss())
        assert told(found)[:4] == told(whole)[:4]
        assert all(found.reason(job) == whole.reason(job) for job in whole.waiting)
        unread += len(lanes.unread)
    assert unread > 48


def test_long_waiting_does_not_make_a_plan_read_the_queue_of_those_for_whom_nobody_can_leave() -> None:
    fleet = Fleet.of([worker(1, 1)], lender=0, owner=1)
    lent = fleet.submit(gpus(), 1)
    fleet.step()
    for user in range(10):
        fleet.submit(gpus(), 2, user=100 + user)
    fleet.now = 3 * DAY
    fleet.running[lent] = replace(fleet.running[lent], preempted_at=fleet.now)  # not asked again so soon
    lanes = Lanes(before := fleet.situation())
    shares = Shares(fleet.teams, {100 + user: float(user) for user in range(10)})  # one user after another
    assert not plan(replace(before, queue=[], unread=lanes, shares=shares), LeastLoss()).preemptions
    assert len(lanes.unread) > 5


def test_a_plan_asks_for_room_for_so_many_jobs_and_the_next_one_goes_on() -> None:
    fleet = Fleet.of([worker(number, 4) for number in range(1, 13)], lender=0, owner=48)
    for _ in range(48):
        fleet.submit(gpus(), 1)
    while not fleet.step().complete:
        pass
    for user in range(48):
        fleet.submit(gpus(), 2, user=100 + user)
    first = fleet.step()
    assert (len(first.preemptions), first.complete) == (fleet.policy.askings, False)
    second = fleet.step()
    assert len({one.number for one in (*first.preemptions, *second.preemptions)}) == 48
    assert len({one.beneficiary for one in (*first.preemptions, *second.preemptions)}) == 48
    assert fleet.step().complete
