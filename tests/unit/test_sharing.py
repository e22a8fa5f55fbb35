"""What teams are promised: guarantees, fair turns, bounded waits, and that nobody makes room for nothing."""

from dataclasses import replace

from stoker.jobs.fit import Demand
from stoker.jobs.placement import LeastLoss
from stoker.jobs.planner import plan
from stoker.jobs.policy import Policy
from stoker.jobs.shares import Quota, TeamShare
from stoker.jobs.situation import HIGH, LOW, NORMAL, URGENT, Candidate, Span
from tests.support.fleets import GB, MINUTE, Fleet, gpus, worker


def test_a_burst_takes_no_more_turns_than_its_share() -> None:
    fleet = Fleet.of([worker(1, 8)], flood=0, other=0)
    flood = [fleet.submit(gpus(), 1) for _ in range(50)]
    late = [fleet.submit(gpus(), 2) for _ in range(4)]
    fleet.step()
    assert fleet.running.keys() == {*flood[:4], *late}


def test_weights_and_past_use_decide_how_much_of_what_is_free() -> None:
    fleet = Fleet.of([worker(1, 6)], small=0, large=0)
    fleet.teams[2] = TeamShare("large", weight=2.0)
    for _ in range(6):
        fleet.submit(gpus(), 1)
        fleet.submit(gpus(), 2)
    fleet.step()
    assert sorted(one.team for one in fleet.running.values()) == [1, 1, 2, 2, 2, 2]
    used = Fleet.of([worker(1, 2)], idle=0, busy=0)
    used.teams[2] = TeamShare("busy", used=10**6)
    for team in (2, 2, 1, 1):
        used.submit(gpus(), team)
    used.step()
    assert {one.team for one in used.running.values()} == {1}


def test_within_a_team_users_share_alike_and_order_their_own() -> None:
    fleet = Fleet.of([worker(1, 4)], team=0)
    first = [fleet.submit(gpus(), 1, user=11) for _ in range(9)]
    second = [fleet.submit(gpus(), 1, user=12) for _ in range(2)]
    fleet.queue[first[5]] = replace(fleet.queue[first[5]], own_order=-1)
    fleet.step()
    assert fleet.running.keys() == {first[5], first[0], *second}


def test_a_class_goes_before_another_and_long_waiting_raises() -> None:
    fleet = Fleet.of([worker(1, 1)], team=0)
    low, normal, high = (fleet.submit(gpus(), priority=level) for level in (LOW, NORMAL, HIGH))
    fleet.step()
    assert fleet.running.keys() == {high}
    fleet.leave(high)
    fleet.now = 5 * 86400.0  # both have waited, and are high by now: the oldest goes first
    later = fleet.submit(gpus(), priority=NORMAL)
    fleet.step()
    assert fleet.running.keys() == {low}
    assert {normal, later} == fleet.queue.keys()


def test_what_is_lent_is_taken_back_from_the_cheapest_and_held() -> None:
    fleet = Fleet.of([worker(1, 4)], owner=2, borrower=0)
    lent = [fleet.submit(gpus(), 2) for _ in range(4)]
    fleet.step()
    fleet.now = 600.0
    fleet.running[lent[2]] = replace(fleet.running[lent[2]], kept_at=590.0)  # its checkpoint is the latest
    mine = fleet.submit(gpus(), 1)
    made = fleet.step()
    assert [(one.number, one.beneficiary) for one in made.preemptions] == [(lent[2], mine)]
    assert "guaranteed" in made.preemptions[0].sentence
    assert fleet.reason(mine) == "making_room"
    assert not fleet.step().preemptions  # one set at a time
    stranger = fleet.submit(gpus(), 2, priority=HIGH)
    fleet.obey()
    fleet.step()
    assert mine in fleet.running
    assert stranger in fleet.queue


def test_nobody_is_asked_for_more_than_the_guarantee_nor_by_low_jobs() -> None:
    fleet = Fleet.of([worker(1, 4)], owner=1, borrower=0)
    for _ in range(4):
        fleet.submit(gpus(), 2)
    fleet.step()
    low, one, two = fleet.submit(gpus(), 1, priority=LOW), fleet.submit(gpus(), 1), fleet.submit(gpus(), 1)
    made = fleet.step()
    assert {preemption.beneficiary for preemption in made.preemptions} == {one}
    assert len(made.preemptions) == 1
    assert {low, two} <= fleet.queue.keys()


def test_an_urgent_job_takes_what_is_lent_and_leaves_what_is_guaranteed() -> None:
    fleet = Fleet.of([worker(1, 2), worker(2, 2)], safe=2, lent=0, rush=0)
    safe = [fleet.submit(gpus(), 1) for _ in range(2)]
    lent = [fleet.submit(gpus(), 2) for _ in range(2)]
    fleet.step()
    urgent = fleet.submit(gpus(2), 3, priority=URGENT)
    made = fleet.step()
    if {fleet.running[number].spot.node for number in lent} == {1, 2}:  # spread: no two on one worker can leave
        assert not made.preemptions
    else:
        assert {one.number for one in made.preemptions} == set(lent)
        fleet.obey()
        fleet.step()
        assert urgent in fleet.running
    assert set(safe) <= fleet.running.keys()


def test_nobody_makes_room_twice_within_ten_minutes() -> None:
    fleet = Fleet.of([worker(1, 1)], one=0, other=0)
    victim = fleet.submit(gpus(), 1)
    fleet.step()
    fleet.running[victim] = replace(fleet.running[victim], preempted_at=-60.0)
    fleet.submit(gpus(), 2, priority=URGENT)
    assert not fleet.step().preemptions
    fleet.now = 541.0
    assert fleet.step().preemptions


def test_what_was_freed_is_given_away_when_its_reservation_lapses() -> None:
    fleet = Fleet.of([worker(1, 2)], one=0, other=0)
    running = [fleet.submit(gpus(), 1) for _ in range(2)]
    fleet.step()
    urgent = fleet.submit(gpus(2), 2, priority=URGENT)
    assert len(fleet.step().preemptions) == 2
    fleet.leave(running[0])  # the other never leaves
    waiting = fleet.submit(gpus(), 1)
    fleet.step()
    assert waiting in fleet.queue
    fleet.now += fleet.policy.hold_seconds + 1
    fleet.step()
    assert urgent in fleet.queue
    assert not [one for one in fleet.reservations if one.expires_at is not None]


def test_small_jobs_pass_a_large_one_only_when_they_end_in_time() -> None:
    fleet = Fleet.of([worker(1, 4)], team=0)
    first = fleet.submit(gpus(3), seconds=60 * MINUTE)
    fleet.step()
    large = fleet.submit(gpus(4), seconds=10 * MINUTE)
    fleet.step()
    assert fleet.reason(large) == "reserved"
    long = fleet.submit(gpus(cpus=2), seconds=90 * MINUTE)
    fleet.step()
    assert fleet.reason(long) == "kept"
    short = fleet.submit(gpus(), seconds=30 * MINUTE)
    fleet.step()
    assert short in fleet.running
    fleet.leave(short)
    fleet.seconds[first] = 500 * MINUTE  # the promised start slips
    fleet.now = 95 * MINUTE
    late = fleet.submit(gpus(), seconds=1 * MINUTE)
    fleet.step()
    assert late in fleet.queue  # nothing passes any more
    fleet.leave(first)
    fleet.step()
    assert large in fleet.running


def test_a_reservation_stays_where_it_is_between_plans() -> None:
    fleet = Fleet.of([worker(1, 4), worker(2, 4)], team=0)
    for number in range(8):
        fleet.submit(gpus(), seconds=(60 + number) * MINUTE)
    fleet.step()
    large = fleet.submit(gpus(4), seconds=MINUTE)
    fleet.step()
    promised = fleet.reservations
    assert [one.number for one in promised] == [large]
    fleet.now = 10 * MINUTE
    fleet.step()
    assert fleet.reservations == promised


def test_a_limit_is_never_passed_and_the_reason_names_it() -> None:
    fleet = Fleet.of([worker(1, 4)], team=0)
    fleet.teams[1] = TeamShare("vision", quotas={"default": Quota(gpus_limit_milli=2000)})
    numbers = [fleet.submit(gpus()) for _ in range(3)]
    made = fleet.step()
    assert fleet.running.keys() == set(numbers[:2])
    assert made.reasons[numbers[2]].code == "team_limit"
    assert made.reasons[numbers[2]].sentence == (
        "team vision holds 2 of the 2 GPUs that it may use in the pool default"
    )


def test_parts_of_a_gpu_are_shared_within_one_team_and_only_where_the_pool_allows() -> None:
    fleet = Fleet.of([worker(1, 1, fractions=True), worker(2, 1)], one=0, other=0)
    halves = [fleet.submit(gpus(share=400, team=1), 1) for _ in range(2)]
    foreign = fleet.submit(gpus(share=100, team=2), 2)
    fleet.step()
    assert len({fleet.running[number].spot.units for number in fleet.running}) == 1
    teams = {fleet.running[number].team for number in fleet.running}
    assert len(teams) == 1
    for number in list(fleet.running):
        fleet.leave(number)
    fleet.step()
    assert {*halves, foreign} - fleet.queue.keys()
    only_whole = Fleet.of([worker(2, 1)], one=0)
    number = only_whole.submit(gpus(share=400, team=1), 1)
    only_whole.step()
    assert only_whole.reason(number) == "fractions"


class Faster:
    """Ten times faster on a GPU; what runs ends after so many seconds."""

    def __init__(self, left: float) -> None:
        self._left = left

    def of(self, _: Candidate, device: str) -> Span:
        """From start to end."""
        seconds = 60.0 if device == "gpu" else 600.0
        return Span(seconds, seconds, seconds)

    def left(self, *_: object) -> Span:
        """From now to the end."""
        return Span(self._left, self._left, self._left)


def test_a_job_that_may_run_on_either_waits_for_the_device_that_ends_it_sooner() -> None:
    fleet = Fleet.of([worker(1, 1)], team=0)
    fleet.submit(gpus())
    fleet.step()
    either = fleet.submit(Demand(1000, GB))
    soon = plan(replace(fleet.situation(), estimates=Faster(30.0)), LeastLoss())
    assert soon.reasons[either].code == "gpu_sooner"
    late = plan(replace(fleet.situation(), estimates=Faster(3000.0)), LeastLoss())
    assert [(one.number, one.spot.device) for one in late.placements] == [(either, "cpu")]


def test_data_at_hand_decides_between_workers_that_are_about_as_good() -> None:
    nodes = [worker(1, 0), replace(worker(2, 0), data=frozenset({"cifar10"}))]
    fleet = Fleet.of(nodes, team=0)
    number = fleet.submit(Demand(1000, GB, "cpu"))
    fleet.queue[number] = replace(fleet.queue[number], data="cifar10")
    fleet.step()
    assert fleet.running[number].spot.node == 2


def test_a_plan_places_so_many_and_another_goes_on() -> None:
    fleet = Fleet.of([worker(1, 4), worker(2, 4)], team=0)
    fleet.policy = Policy(placements=3)
    for _ in range(8):
        fleet.submit(gpus())
    assert [fleet.step().complete for _ in range(3)] == [False, False, True]
    assert not fleet.queue
