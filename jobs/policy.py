"""The numbers of the policy. What each does is told in docs/scheduling.md."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """What an administrator could argue about."""

    half_life_seconds: float = 7 * 86400.0  # after so long, what was used counts half
    entry_seconds: float = 1800.0  # a job is charged for at least so long as soon as it is placed
    cpus_per_gpu: float = 16.0  # so many CPUs count as one GPU
    slip_seconds: float = 1800.0  # once a promised start has slipped so far, nothing passes any more
    hold_seconds: float = 120.0  # how long what victims free is held: preempt_grace + 60 s
    preempt_again_seconds: float = 600.0  # nobody is preempted twice within this
    raise_seconds: float = 2 * 86400.0  # a job that has waited so long goes with the next higher class, up to high
    placements: int = 128  # at most so many in one plan; another follows at once
    askings: int = 32  # for at most so many jobs others are asked to leave in one plan
    reservations: int = 8  # at most so many jobs hold one,
    workers_per_reservation: int = 2  # and one for so many workers: what is kept free meanwhile is lost to all others


DEFAULT_POLICY = Policy()
