"""Carries out a schedule of faults against a system, and watches it all the while."""

import heapq
import itertools
import random
import time
from collections.abc import Callable, Iterator

from sqlalchemy import ScalarSelect, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import aliased

from stoker.jobs.lifecycle import FINAL, AttemptState, Outcome
from stoker.jobs.models import Attempt, Job, Worker
from stoker.workers import processes
from tests.faults.system import LEASE_SECONDS, Member, System
from tests.support.workers import state_letter, title_of

ORPHAN_SECONDS = 3.0  # after its worker's death a trainer must be gone
STARTING_SECONDS = 30.0  # and a fork server that still loads torch, before which it cannot look
GONE_SECONDS = 0.5  # between two looks for that
LOOK_SECONDS = 0.1  # between two looks for jobs that run twice
Undo = Callable[[], object]


class Nemesis:
    """Hands and eyes for faults: time that passes, victims, and what is to be put right again later."""

    def __init__(self, system: System, seed: int) -> None:
        """Work on a system that is whole; ``seed`` decides what the schedule leaves open."""
        self.system, self.history = system, system.history
        self.dice = random.Random(seed)
        self._later: list[tuple[float, int, Undo]] = []
        self._order = itertools.count()
        self._looked = 0.0
        self.paused: set[str] = set()  # workers that are stopped by SIGSTOP, or about to be

    def later(self, seconds: float, undo: Undo) -> None:
        """Do something after so many seconds, while we wait for something else."""
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._order), undo))

    def tick(self) -> None:
        """Do what is due, start again what is down, look for jobs that run twice."""
        while self._later and self._later[0][0] <= time.monotonic():
            undo = heapq.heappop(self._later)[2]
            try:
                undo()
            except SQLAlchemyError:
                self.later(1.0, undo)  # the database is away just now
        self.system.tend()
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            self._look_for_twins()

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.wait_until(lambda: False, seconds)

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait for a condition, at most so long; whether it came true."""
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                return False
            self.tick()
            time.sleep(0.01)
        return True

    def settle(self) -> None:
        """Put right what is still to be put right."""
        while self._later:
            self.wait_until(lambda: not self._later, 1.0)

    # Victims

    def workers(self) -> list[Member]:
        """The workers that run and are not paused, in an order by chance."""
        found = [one for one in self.system.workers if one.child.alive and one.name not in self.paused]
        return self.dice.sample(found, len(found))

    def worker_of(self, pid: int) -> Member | None:
        """The worker that a process is, or belongs to."""
        for member in self.system.workers:
            if member.child.pid is not None and pid in (member.child.pid, *processes.descendants(member.child.pid)):
                return member
        return None

    def fresh_jobs(self) -> set[int]:
        """The jobs that can be hurt once more without becoming suspected of poison, or waiting for long."""
        with self.system.sessions() as session:
            wanted = select(Job.number).where(Job.state.not_in(FINAL), Job.retries_used == 0, _losses() <= 1)
            return set(session.scalars(wanted))

    def unfinished(self) -> int:
        """How many jobs have not ended."""
        with self.system.sessions() as session:
            return session.scalar(select(func.count()).where(Job.state.not_in(FINAL))) or 0

    def running(self) -> list[Attempt]:
        """The attempts that run now, in an order by chance."""
        with self.system.sessions() as session:
            found = list(session.scalars(select(Attempt).where(Attempt.state == AttemptState.RUNNING)))
        return self.dice.sample(found, len(found))

    def spared(self, member: Member) -> bool:
        """Whether a worker runs a job that one more loss could make suspected of poison."""
        with self.system.sessions() as session:
            endangered = (
                select(func.count())
                .select_from(Attempt)
                .join(Job, Job.number == Attempt.job_number)
                .join(Worker, Worker.id == Attempt.worker_id)
                .where(Worker.name == member.name, Attempt.state == AttemptState.RUNNING, _losses() >= 2)
            )
            return bool(session.scalar(endangered))

    def state_of(self, attempt: str) -> str | None:
        """The state of an attempt; None while the database is away."""
        try:
            with self.system.sessions() as session:
                return session.scalar(select(Attempt.state).where(Attempt.id == attempt))
        except SQLAlchemyError:
            return None

    # Harm

    def kill_worker(self, member: Member, *, back_in_seconds: float | None = None) -> None:
        """SIGKILL a worker and see that nothing outlives it; it comes back at once, or after its lease, by chance."""
        pid = member.child.pid
        if pid is None or not member.child.alive:
            return
        family = {(one, at) for one in processes.descendants(pid) if (at := processes.started(one)) is not None}
        soon = self.dice.choice([0.0, LEASE_SECONDS + 1.0]) if back_in_seconds is None else back_in_seconds
        self.system.expect_down(member, soon)
        starting = {one for one in family if title_of(one[0]) == "python"}
        member.child.kill()
        self._expect_gone(family - starting, ORPHAN_SECONDS)
        self._expect_gone(starting, STARTING_SECONDS)

    def _expect_gone(self, family: set[tuple[int, float]], seconds: float) -> None:
        """Look now and then until these processes are gone; note those that are still there after so long."""
        left = {(pid, started) for pid, started in family if processes.started(pid) == started}
        if left and seconds > 0:
            self.later(GONE_SECONDS, lambda: self._expect_gone(left, seconds - GONE_SECONDS))
            return
        for pid, _ in left:
            self.history.note("orphan", pid=pid, title=title_of(pid))

    def _look_for_twins(self) -> None:
        found = self._computing()
        suspects = {job: pids for job, pids in found.items() if len(pids) > 1}
        if not suspects:
            return
        time.sleep(0.05)  # one of them may just have been killed
        again = self._computing()
        for job, pids in suspects.items():
            if len(both := pids & again.get(job, set())) > 1:
                self.history.note("overlap", job=job, pids=sorted(both))

    def _computing(self) -> dict[int, set[int]]:
        found: dict[int, set[int]] = {}
        for member in self.system.workers:
            for job, pid in trainers_of(member):
                if state_letter(pid) in "RSD":
                    found.setdefault(job, set()).add(pid)
        return found


def _losses() -> ScalarSelect[int]:
    """How many attempts of a job were lost since its latest checkpoint, in a query about jobs."""
    lost = aliased(Attempt)
    return (
        select(func.count())
        .where(lost.job_number == Job.number, lost.ended_at >= Job.losses_counted_from)
        .where(lost.outcome.in_([Outcome.LOST, Outcome.FAILED]))
        .correlate(Job)
        .scalar_subquery()
    )


def trainers_of(member: Member) -> Iterator[tuple[int, int]]:
    """The job and process of each trainer of a worker."""
    if member.child.pid is None or not member.child.alive:
        return
    for pid in processes.descendants(member.child.pid):
        words = title_of(pid).split()
        if len(words) == 2 and words[0] == "job" and words[1].isdecimal():
            yield int(words[1]), pid


def fork_server_of(member: Member) -> int | None:
    """The process of a worker's fork server."""
    if member.child.pid is None or not member.child.alive:
        return None
    return next((pid for pid in processes.children(member.child.pid) if title_of(pid) == "stoker-forks"), None)
