"""Who goes first when many wait: long waiting and kept places leave every team its part."""

from dataclasses import replace

import pytest

from stoker.jobs.shares import TeamShare
from stoker.jobs.situation import HIGH, LOW, NORMAL
from tests.support.fleets import MINUTE, Fleet, gpus, worker

DAY = 86400.0


def test_a_flood_that_waited_long_does_not_go_before_a_team_that_used_less() -> None:
    fleet = Fleet.of([worker(1, 1)], flood=0, other=0)
    fleet.teams[1] = TeamShare("flood", used=10 * DAY)
    old = fleet.submit(gpus(), 1)
    fleet.now = 3 * DAY
    new = fleet.submit(gpus(), 2)
    fleet.step()
    assert fleet.running.keys() == {new}
    fleet.leave(new)
    fleet.step()
    assert fleet.running.keys() == {old}


def test_a_team_that_only_asks_for_high_jobs_starves_nobody_that_used_less() -> None:
    fleet = Fleet.of([worker(1, 1)], high=0, normal=0)
    fleet.teams[1] = TeamShare("high", used=10 * DAY)
    normal = fleet.submit(gpus(), 2, priority=NORMAL)
    first = fleet.submit(gpus(), 1, priority=HIGH)
    fleet.step()
    assert fleet.running.keys() == {first}  # classes come before shares
    fleet.leave(first)
    fleet.now = 2 * DAY
    fleet.submit(gpus(), 1, priority=HIGH)
    fleet.step()
    assert fleet.running.keys() == {normal}  # but not for ever


def test_low_jobs_are_raised_too() -> None:
    fleet = Fleet.of([worker(1, 1)], busy=0, idle=0)
    fleet.teams[1] = TeamShare("busy", used=10 * DAY)
    low = fleet.submit(gpus(), 2, priority=LOW)
    fleet.submit(gpus(), 1, priority=NORMAL)
    fleet.now = 4 * DAY
    fleet.submit(gpus(), 1, priority=HIGH)
    fleet.step()
    assert fleet.running.keys() == {low}


@pytest.mark.parametrize("kept", [False, True], ids=["no place", "a kept place"])
def test_a_team_that_used_most_starves_none_of_its_own(kept: bool) -> None:
    fleet = Fleet.of([worker(1, 1)], heavy=0, other=0)
    fleet.teams[1] = TeamShare("heavy", used=1000 * DAY)
    busy = fleet.submit(gpus(), 1, user=12, priority=HIGH)
    fleet.step()
    normal = fleet.submit(gpus(), 1, user=11)
    if kept:
        fleet.step()
    assert [one.number for one in fleet.reservations] == [normal] * kept
    fleet.leave(busy)
    fleet.now = 300 * DAY
    new = fleet.submit(gpus(), 2)
    high = fleet.submit(gpus(), 1, user=12, priority=HIGH)
    fleet.now += 1
    order = list[int]()
    while fleet.queue:
        fleet.step()
        order += fleet.running
        fleet.leave(order[-1])
    assert order == [normal, high, new]  # the team's turn comes as early as before


def test_a_team_that_used_most_is_not_raised_among_others() -> None:
    fleet = Fleet.of([worker(1, 1)], heavy=0, other=0)
    fleet.teams[1] = TeamShare("heavy", used=1000 * DAY)
    low, normal = fleet.submit(gpus(), 1, priority=LOW), fleet.submit(gpus(), 1)
    fleet.now = 300 * DAY
    new, last = fleet.submit(gpus(), 2), fleet.submit(gpus(), 2, priority=LOW)
    order = list[int]()
    while fleet.queue:
        fleet.step()
        order += fleet.running
        fleet.leave(order[-1])
    assert order == [new, low, normal, last]


def test_a_job_that_made_room_does_not_pull_down_those_behind_it() -> None:
    fleet = Fleet.of([worker(1, 1)], one=0, other=0)
    fleet.teams[2] = TeamShare("other", used=10 * DAY)
    victim, behind = fleet.submit(gpus(), 1), fleet.submit(gpus(), 1)
    fleet.now = 3 * DAY
    fleet.queue[victim] = replace(fleet.queue[victim], queued_at=fleet.now - MINUTE)  # it has just queued again
    fleet.submit(gpus(), 2, priority=HIGH)
    fleet.step()
    assert fleet.running.keys() == {victim}  # as old as the one that it keeps from starting
    fleet.leave(victim)
    fleet.step()
    assert fleet.running.keys() == {behind}


def test_places_are_kept_for_teams_in_turn() -> None:
    fleet = Fleet.of([worker(number, 1) for number in range(1, 9)], one=0, other=0)
    for number in range(8):
        fleet.submit(gpus(), 1 + number % 2, seconds=60 * MINUTE)
    fleet.step()
    for user, team in enumerate((1, 1, 1, 1, 2, 2, 2, 2)):
        fleet.submit(gpus(), team, user=user, seconds=MINUTE)
    fleet.step()
    assert len(fleet.reservations) == 4  # one for each two workers
    assert sorted(fleet.queue[one.number].team for one in fleet.reservations) == [1, 1, 2, 2]
