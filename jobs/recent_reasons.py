"""Why jobs wait, by a plan that serves all who ask within a moment."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock

from stoker.jobs.fit import Node
from stoker.jobs.planner import Plan
from stoker.jobs.reasons import Reason
from stoker.jobs.situation import Candidate
from stoker.jobs.waits import or_other_version


@dataclass(frozen=True)
class Reasons:
    """Why jobs wait: by a plan, and by the workers that speak another protocol."""

    plan: Plan
    other: Sequence[Node]

    def of(self, job: Candidate) -> Reason:
        """Why a job that was read, or stands behind those that were, does not start now."""
        return or_other_version(self.plan.reason(job), job.demand, self.plan.made.situation.fleet, self.other)


@dataclass(frozen=True)
class _Told:
    """A plan that was made, and the jobs that were read for it."""

    at: float
    jobs: Mapping[int, Candidate]
    reasons: Reasons
    lock: Lock = field(default_factory=Lock)  # a plan notes what it finds out when it is asked


class RecentReasons:
    """The last plan that was made to tell a reason: all who follow a job ask again and again. Threads may share it."""

    def __init__(self, good_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Tell by a plan for so long."""
        self._good_seconds, self._clock = good_seconds, clock
        self._told: _Told | None = None

    def of(self, number: int) -> Reason | None:
        """Why a job does not start; None: no plan of the last moment was made with it."""
        told = self._told
        if told is None or self._clock() - told.at >= self._good_seconds or number not in told.jobs:
            return None
        with told.lock:
            return told.reasons.of(told.jobs[number])

    def keep(self, read: Iterable[Candidate], reasons: Reasons) -> None:
        """Tell by this plan from now on."""
        self._told = _Told(self._clock(), {job.number: job for job in read}, reasons)
