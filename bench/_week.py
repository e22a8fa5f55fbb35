"""A week of jobs on a shared fleet, made up from a seed: arrivals, lengths, sizes, floods, failures."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stoker.jobs.fit import WHOLE, Demand, Node, Unit
from stoker.jobs.forecast import Like
from stoker.jobs.shares import Quota, Shares, TeamShare
from stoker.jobs.situation import Candidate

DAY, HOUR, GB = 86400.0, 3600.0, 10**9
TEAMS = {1: "vision", 2: "nlp", 3: "speech", 4: "robots", 5: "med", 6: "flood"}
WEIGHTS = {1: 2.0}
GUARANTEES = {3: 4, 5: 4}  # GPUs
FLOOD, FLOODS = 6, (1.4, 4.4)  # which team, and at what days
PART = {1: 0.28, 2: 0.18, 3: 0.12, 4: 0.12, 5: 0.12, 6: 0.18}  # of what all ask for
SIZES = ((1, 0.62), (2, 0.16), (4, 0.12), (8, 0.10))
LOAD = 0.85  # GPU-seconds asked for, of what there is
GPUS = 32


@dataclass(frozen=True)
class Task:
    """A job, and what nobody knows beforehand."""

    job: Candidate
    at: float
    seconds: float
    full_seconds: float  # if it did not fail
    like: Like
    silent: bool  # tells nothing of its progress
    asked_late: bool  # cannot write a checkpoint when it is asked to

    @property
    def gpu_seconds(self) -> float:
        """What it asks of the fleet."""
        return self.seconds * self.job.demand.gpus


def fleet() -> list[Node]:
    """Four workers of eight GPUs."""
    return [
        Node(
            node,
            f"gpu-{node}",
            "cpu",
            128_000,
            128_000,
            1000 * GB,
            1000 * GB,
            32,
            32,
            tuple(Unit(node * 8 + place, "H100", 80 * GB, WHOLE, WHOLE) for place in range(8)),
        )
        for node in range(1, 5)
    ]


def shares(guarantees: bool = True) -> Shares:
    """The teams, with nothing used yet."""
    quotas = {team: {"default": Quota(gpus_milli=gpus * WHOLE)} for team, gpus in GUARANTEES.items() if guarantees}
    return Shares(
        {team: TeamShare(name, WEIGHTS.get(team, 1.0), 0.0, quotas.get(team, {})) for team, name in TEAMS.items()}
    )


class Source:
    """Makes jobs: four users a team, three recipes a user, each with a size and a length of its own."""

    def __init__(self, chance: random.Random) -> None:
        self.chance, self.number = chance, 0
        self.recipes = {
            team: [
                (user, (user, recipe), self._size(), HOUR * chance.lognormvariate(0.0, 1.0))
                for user in range(team * 10, team * 10 + 4)
                for recipe in range(3)
            ]
            for team in TEAMS
        }

    def _size(self) -> int:
        return self.chance.choices([size for size, _ in SIZES], [part for _, part in SIZES])[0]

    def make(self, team: int, at: float) -> Task:
        """The next job of a team."""
        chance = self.chance
        user, recipe, gpus, length = chance.choice(self.recipes[team])
        self.number += 1
        full = max(30.0, length * chance.lognormvariate(0.0, 0.15))
        seconds = full * chance.uniform(0.01, 0.2) if chance.random() < 0.05 else full
        priority = chance.choices([0, 1, 2, 3], [0.1, 0.8, 0.09, 0.01])[0]
        demand = Demand(4000 * gpus, 32 * GB * gpus, device="gpu", gpus=gpus)
        like = Like((("recipe", *recipe), ("team", team), ("all",)))
        job = Candidate(self.number, priority, demand, team=team, user=user, queued_at=at)
        return Task(job, at, seconds, full, like, chance.random() < 0.3, chance.random() < 0.3)


def week(seed: int, days: float) -> list[Task]:
    """The jobs of a week: of most teams more by day than by night; team flood sends all of its part in two floods."""
    source = Source(random.Random(seed))
    floods = [at * DAY for at in FLOODS if at < days]
    tasks: list[Task] = []
    for team, part in PART.items():
        asked = LOAD * part * GPUS * days * DAY
        if team != FLOOD:
            tasks += _stream(source, team, asked, days)
        for at in floods if team == FLOOD else ():
            tasks += _at_once(source, team, asked / len(floods), at)
    return numbered(tasks)


def others(seed: int, days: float, count: int) -> list[list[Task]]:
    """Other weeks of the same users and recipes, as likely as the first but for its floods."""
    found = []
    for luck in range(count):
        source = Source(random.Random(seed))
        source.chance = random.Random(f"{seed} {luck}")
        parts = {team: LOAD * part * GPUS * days * DAY for team, part in PART.items() if team != FLOOD}
        found.append(numbered([task for team, asked in parts.items() for task in _stream(source, team, asked, days)]))
    return found


def _stream(source: Source, team: int, asked: float, days: float) -> list[Task]:
    """Jobs of so many GPU-seconds, of one hour of the night a third as many as of one of the day."""
    made: list[Task] = []
    while sum(task.gpu_seconds for task in made) < asked:
        at = source.chance.uniform(0, days * DAY)
        if source.chance.random() <= (1.0 if 9 <= at % DAY / HOUR <= 19 else 0.35):
            made.append(source.make(team, at))
    return made


def _at_once(source: Source, team: int, asked: float, at: float) -> list[Task]:
    """Jobs of so many GPU-seconds, one every second."""
    made: list[Task] = []
    while sum(task.gpu_seconds for task in made) < asked:
        made.append(source.make(team, at + len(made)))
    return made


def always_waiting(seed: int, days: float, *, classes: bool = True) -> list[Task]:
    """A third more jobs of every team than its part, a quarter of them at the start; team flood has twice as many.

    With ``classes`` one of ten is high, otherwise all are normal.
    """
    source = Source(random.Random(seed))
    tasks = []
    for team in TEAMS:
        asked = 0.0
        part = WEIGHTS.get(team, 1.0) / sum(WEIGHTS.get(one, 1.0) for one in TEAMS)
        while asked < GPUS * days * DAY * part * (2.0 if team == FLOOD else 4 / 3):
            early = source.chance.random() < 1 / 4
            task = source.make(team, source.chance.uniform(0, 60.0 if early else days * DAY))
            if task.job.priority in {1, 2}:
                tasks.append(task if classes else replace(task, job=replace(task.job, priority=1)))
                asked += task.gpu_seconds
    return numbered(tasks)


def numbered(tasks: Sequence[Task]) -> list[Task]:
    """The jobs in the order in which they come, numbered so."""
    ordered = sorted(tasks, key=lambda task: (task.at, task.job.number))
    return [replace(task, job=replace(task.job, number=number)) for number, task in enumerate(ordered, 1)]
