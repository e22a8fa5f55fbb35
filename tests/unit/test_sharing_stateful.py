"""Whatever users and workers do, in whatever order: what is promised about sharing holds at every step."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stoker.jobs.shares import Quota
from stoker.jobs.situation import URGENT
from tests.support.fleets import MINUTE, Fleet, gpus, worker

TEAMS = st.integers(1, 3)


class Sharing(RuleBasedStateMachine):
    """Three teams on four workers; one team starts with a guarantee."""

    @initialize(
        sizes=st.lists(st.sampled_from([0, 1, 2, 4]), min_size=1, max_size=4),
        guaranteed=st.integers(0, 4),
        lent=st.integers(0, 12),
    )
    def start(self, sizes: list[int], guaranteed: int, lent: int) -> None:
        """Make the fleet, much of it lent to a team that is guaranteed nothing."""
        self.fleet = Fleet.of([worker(number, size) for number, size in enumerate(sizes, 1)], a=guaranteed, b=0, c=1)
        self.largest = max(sizes)
        self.ended: set[int] = set()
        for _ in range(lent if self.largest else 0):
            self.fleet.submit(gpus(), 2)
        self.fleet.step()

    @precondition(lambda self: self.largest > 0)
    @rule(
        count=st.integers(1, 4), team=TEAMS, user=st.integers(1, 2), priority=st.integers(0, URGENT),
        minutes=st.sampled_from([None, 1, 30, 300]),
    )  # fmt: skip
    def submit(self, count: int, team: int, user: int, priority: int, minutes: int | None) -> None:
        """A job that some worker could run, when empty."""
        seconds = None if minutes is None else minutes * MINUTE
        demand = gpus(min(count, self.largest))
        self.fleet.submit(demand, team, priority=priority, seconds=seconds, user=10 * team + user)

    @rule(chosen=st.integers(0, 99), killed=st.booleans())
    def end(self, chosen: int, killed: bool) -> None:
        """A running job ends, or its worker loses it and it is queued again."""
        if self.fleet.running:
            number = sorted(self.fleet.running)[chosen % len(self.fleet.running)]
            self.fleet.leave(number, requeue=killed)
            if not killed:
                self.ended.add(number)

    @rule(chosen=st.integers(0, 99))
    def cancel(self, chosen: int) -> None:
        """A queued job is cancelled or held."""
        if self.fleet.queue:
            self.fleet.queue.pop(sorted(self.fleet.queue)[chosen % len(self.fleet.queue)])

    @rule(number=st.integers(1, 4))
    def drain(self, number: int) -> None:
        """A worker takes nothing new, or takes jobs again."""
        if number in self.fleet.nodes:
            self.fleet.draining ^= {number}

    @rule(team=TEAMS, guaranteed=st.integers(0, 6), limit=st.sampled_from([None, 0, 4]))
    def change_quota(self, team: int, guaranteed: int, limit: int | None) -> None:
        """More than there is may be guaranteed: workers come and go."""
        least = None if limit is None else 1000 * max(limit, guaranteed)
        quota = Quota(gpus_milli=1000 * guaranteed, gpus_limit_milli=least)
        self.fleet.teams[team] = replace(self.fleet.teams[team], quotas={"default": quota})

    @rule(minutes=st.sampled_from([1, 9, 31]))
    def wait(self, minutes: int) -> None:
        """Time goes by."""
        self.fleet.now += minutes * MINUTE

    @rule()
    def obey(self) -> None:
        """Victims leave: what each leaves is used at once by the job that it left for, if that still waits there."""
        left = self.fleet.obey()
        waited = {one.number: one for one in self.fleet.reservations if one.expires_at is not None}
        self.fleet.step()
        for _, beneficiary in left:
            promised = waited.get(beneficiary)
            if (
                promised is None
                or beneficiary not in self.fleet.queue
                or promised.spot.node in self.fleet.draining
                or self.fleet.now >= (promised.expires_at or 0.0)
            ):
                continue  # it runs, or was cancelled; or its worker went, or it took too long
            pytest.fail(f"{beneficiary} does not use what was freed for it")

    @rule()
    def plan(self) -> None:
        """The planner decides; a second look at the same changes nothing."""
        while not self.fleet.step().complete:
            pass
        again = self.fleet.step()
        assert not again.placements
        assert not again.preemptions

    @invariant()
    def each_job_is_in_one_place(self) -> None:
        """I1, I6."""
        assert not self.fleet.queue.keys() & self.fleet.running.keys()
        assert not self.ended & (self.fleet.queue.keys() | self.fleet.running.keys())

    def teardown(self) -> None:
        """Every job gets its turn once others end, and each that waits has one reason."""
        if not hasattr(self, "fleet"):
            return
        self.fleet.draining.clear()
        self.fleet.teams = {number: replace(team, quotas={}) for number, team in self.fleet.teams.items()}
        for _ in range(3 * len(self.fleet.queue) + 3):
            self.fleet.now += 11 * MINUTE
            made = self.fleet.step()
            assert made.reasons.keys() == self.fleet.queue.keys()
            assert all(reason.code != "next" for reason in made.reasons.values())
            for number in list(self.fleet.running):
                self.fleet.leave(number)
        assert not self.fleet.queue


TestSharing = Sharing.TestCase
TestSharing.settings = settings(max_examples=60, stateful_step_count=30, suppress_health_check=list(HealthCheck))


@given(st.lists(st.integers(1, 55), min_size=120, max_size=120), st.integers(2, 4))
@settings(max_examples=15)
def test_however_many_small_jobs_come_a_large_one_starts(lengths: list[int], size: int) -> None:
    """A stream of small jobs of the same team, class and user: the wait is what was promised, and its slip."""
    fleet = Fleet.of([worker(1, 4), worker(2, 2)], team=0)
    for length in lengths[:6]:
        fleet.submit(gpus(), seconds=length * MINUTE)
    fleet.step()
    large = fleet.submit(gpus(size), seconds=MINUTE)
    for length in lengths[6:]:
        fleet.now += MINUTE
        fleet.submit(gpus(cpus=2), seconds=length * MINUTE)
        ended = [one.number for one in fleet.running.values() if one.placed_at + fleet.seconds[one.number] <= fleet.now]
        for number in ended:
            fleet.leave(number)
        fleet.step()
        if large in fleet.running:
            break
    assert large not in fleet.queue
    assert fleet.now <= (55 + 1) * MINUTE + fleet.policy.slip_seconds
