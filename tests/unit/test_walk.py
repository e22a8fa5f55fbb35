"""A long queue in simulated time goes as one that is read whole, however little of it is read at once."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from stoker.jobs.fit import Demand
from stoker.jobs.placement import LeastLoss
from stoker.jobs.situation import Candidate, Lane, Situation
from stoker.jobs.timeline import Timeline
from stoker.jobs.turns import OWN_ORDER
from stoker.jobs.walk import Kept
from tests.support.fleets import gpus, worker

LIKE, MIXED = [gpus(1), gpus(1, 2)], [gpus(1), gpus(2), gpus(4)]


class Stored:
    """A queue of which a few jobs of each kind are read at once; counts how often it is asked."""

    def __init__(self, queue: Sequence[Candidate], depth: int) -> None:
        self._queue, self._depth = sorted(queue, key=OWN_ORDER), depth
        lanes = {(job.team, job.user, job.priority) for job in queue}
        self.lanes = [Lane(*lane, 0.0) for lane in sorted(lanes)]
        self.reads: list[object] = []

    def demands(self, team: int) -> set[Demand]:
        """All that a team's jobs ask for."""
        return {job.demand for job in self._queue if job.team == team}

    def read(self, lanes: Sequence[Lane]) -> list[Candidate]:
        """The first jobs of each kind."""
        self.reads += lanes
        kinds = [(lane.team, lane.user, lane.priority, demand) for lane in lanes for demand in self.demands(lane.team)]
        return [job for kind in kinds for job in self._cut([one for one in self._queue if _kind(one) == kind])]

    def behind(self, job: Candidate) -> list[Candidate]:
        """Those that follow a job."""
        self.reads.append(job)
        like = [one for one in self._queue if _kind(one) == _kind(job)]
        return self._cut([one for one in like if OWN_ORDER(one) > OWN_ORDER(job)])

    def _cut(self, jobs: list[Candidate]) -> list[Candidate]:
        found = jobs[: self._depth]
        return [*found[:-1], replace(found[-1], more=True)] if len(jobs) > self._depth else found


def _kind(job: Candidate) -> tuple[object, ...]:
    return (job.team, job.user, job.priority, job.demand)


def queue(seed: int, demands: Sequence[Demand], classes: Sequence[int] = (1,)) -> list[Candidate]:
    """Jobs of three teams with two users each."""
    chance = random.Random(seed)
    return [
        Candidate(number, chance.choice(classes), chance.choice(demands), number % 3, number % 6)
        for number in range(1, 61)
    ]


def starts(line: Timeline) -> dict[int, float]:
    """When each job starts."""
    line.plan()
    while line.step():
        pass
    return line.first_starts


def lasts(job: Candidate, _: str) -> float:
    """No two jobs end at once."""
    return 100.0 + job.number % 7 * 10 + job.number / 100


@pytest.mark.parametrize(("depth", "demands", "classes"), [(1, LIKE, (1,)), (3, LIKE, (1,)), (100, MIXED, (0, 1, 2))])
def test_jobs_start_when_they_do_if_the_queue_is_read_whole(
    depth: int, demands: Sequence[Demand], classes: Sequence[int]
) -> None:
    for seed in range(3):
        jobs, fleet = queue(seed, demands, classes), [worker(1, 4), worker(2, 4)]
        whole = starts(Timeline(Situation(0.0, jobs, fleet), LeastLoss(), lasts))
        assert len(whole) == len(jobs)
        stored = Stored(jobs, depth)
        kept = Kept(stored)
        assert starts(Timeline(Situation(0.0, [], fleet), LeastLoss(), lasts, walk=kept.walk())) == whole
        asked = len(stored.reads)
        assert starts(Timeline(Situation(0.0, [], fleet), LeastLoss(), lasts, walk=kept.walk())) == whole
        assert len(stored.reads) == asked  # the second run reads nothing anew


def test_a_job_that_was_asked_about_waits_for_those_before_it_that_are_not_read_yet() -> None:
    jobs, fleet = queue(1, LIKE), [worker(1, 4)]
    whole = starts(Timeline(Situation(0.0, jobs, fleet), LeastLoss(), lasts))
    asked = jobs[40]
    stored = Stored([job for job in jobs if job is not asked], 1)
    line = Timeline(Situation(0.0, [asked], fleet), LeastLoss(), lasts, walk=Kept(stored).walk())
    assert starts(line)[asked.number] == whole[asked.number]


def test_no_more_is_read_than_turns_come_to() -> None:
    jobs = [Candidate(number, 1, gpus(4), team, team) for team in (1, 2) for number in range(team, 1001, 2)]
    stored = Stored(jobs, 2)
    line = Timeline(Situation(0.0, [], [worker(1, 4)]), LeastLoss(), lasts, walk=Kept(stored).walk())
    line.plan()
    for _ in range(9):
        line.step()
    assert len(line.first_starts) + len(line.waiting) < 30
