"""Who is entitled to what: quotas, weights, and what was used, decayed. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from stoker.jobs.fit import Demand
from stoker.jobs.policy import Policy


@dataclass(frozen=True, slots=True)
class Quota:
    """What a team is guaranteed in one pool, in thousandths, and the most that it may use there at once."""

    gpus_milli: int = 0
    cpus_milli: int = 0
    gpus_limit_milli: int | None = None  # None: it may borrow whatever is idle
    cpus_limit_milli: int | None = None

    def guaranteed(self, device: str) -> int:
        """Thousandths of what jobs on this device are counted in."""
        return self.gpus_milli if device == "gpu" else self.cpus_milli

    def limit(self, device: str) -> int | None:
        """The most at once."""
        return self.gpus_limit_milli if device == "gpu" else self.cpus_limit_milli


NO_QUOTA = Quota()


@dataclass(frozen=True, slots=True)
class TeamShare:
    """What the planner knows of a team."""

    name: str
    weight: float = 1.0
    used: float = 0.0  # decayed device-seconds of attempts that have ended
    quotas: Mapping[str, Quota] = field(default_factory=dict)  # by pool


@dataclass(frozen=True, slots=True)
class Shares:
    """Teams by id, and the decayed device-seconds of users by id."""

    teams: Mapping[int, TeamShare] = field(default_factory=dict)
    users: Mapping[int, float] = field(default_factory=dict)


NO_SHARES = Shares()


def counted(demand: Demand, device: str) -> int:
    """What a job counts against a quota: on GPUs its thousandths of GPUs, else its thousandths of CPUs."""
    return demand.gpus * demand.gpu_milli if device == "gpu" else demand.cpus_milli


def cost(demand: Demand, device: str, policy: Policy) -> float:
    """Device-seconds that a job uses in a second: its GPUs, or its CPUs where those are the larger part of a host."""
    gpus = demand.gpus * demand.gpu_milli / 1000 if device == "gpu" else 0.0
    return max(gpus, demand.cpus_milli / 1000 / policy.cpus_per_gpu)


def decayed(seconds: float, policy: Policy) -> float:
    """What is left, at the end, of ``seconds`` of use at a rate of one: early use has decayed already."""
    return policy.half_life_seconds / math.log(2) * (1 - math.exp2(-seconds / policy.half_life_seconds))
