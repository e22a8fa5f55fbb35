"""How soon what was asked to end has ended: ``python -m tests.faults.endings [--n 20]``.

Two workers. Cancel: a job that makes steps is cancelled; the clock stops when it is final and its trainer is gone.
SIGTERM: a worker with three jobs that make steps is told to stop; the clock stops when its process is gone. It
must exit with 0, and each of its jobs goes on elsewhere from the last step that it made there.
"""

import argparse
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence
from functools import partial

from sqlalchemy import select

from stoker.jobs.lifecycle import FINAL, Outcome, State
from stoker.jobs.models import Attempt, Job
from stoker.jobs.submissions import cancel
from stoker.workers import processes
from stoker.workers.transactions import repeat
from tests.faults.history import History
from tests.faults.nemesis import trainers_of
from tests.faults.outage import cancel_all
from tests.faults.recovery import latest, submit_endless, table
from tests.faults.report import say
from tests.faults.system import Member, System, running
from tests.support.services import short_home
from tests.support.signals import signal_process
from tests.support.waiting import wait_for

WAIT_SECONDS = 120.0
JOBS = 3  # of a worker that is told to stop
CANCEL_SECONDS, STOP_SECONDS = 5.0, 10.0 + 1.0  # promised; the second is ten seconds and one step


def cancelled(system: System) -> float:
    """Cancel a job that makes steps; seconds until it is final and its trainer is gone."""
    (number,) = submit_endless(system, 1)
    member = _steps_on(system, number)
    trainers = {(pid, processes.started(pid)) for _, pid in trainers_of(member)}
    began = time.monotonic()
    repeat(system.sessions, partial(cancel, number=number, actor="bench"), go_on=lambda: True, what="cancel")

    def ended() -> bool:
        with system.sessions() as session:
            final = State(session.get_one(Job, number).state) in FINAL
        return final and not any(processes.started(pid) == at for pid, at in trainers)

    wait_for(ended, WAIT_SECONDS, f"job {number} and its trainer to end", 0.01)
    return time.monotonic() - began


def stopped(system: System) -> float:
    """Tell a worker to stop under its jobs; seconds until its process is gone."""
    numbers = submit_endless(system, JOBS)
    members = [_steps_on(system, number) for number in numbers]
    member = max(members, key=members.count)
    there = [number for number, one in zip(numbers, members, strict=True) if one is member]
    assert member.child.pid is not None, "it runs jobs"
    system.expect_down(member, WAIT_SECONDS)
    began = time.monotonic()
    signal_process(member.child.pid, signal.SIGTERM)
    wait_for(lambda: not member.child.alive, WAIT_SECONDS, f"{member.name} to end", 0.01)
    took = time.monotonic() - began
    assert member.child.fate() == "exit code 0", member.child.fate()
    left = [_attempts(system, number)[0] for number in there]
    given_back = {attempt.job_number: attempt.outcome for attempt in left}
    assert set(given_back.values()) == {Outcome.PREEMPTED}, f"a job was not given back: {given_back}"
    system.expect_down(member, 0.0)
    for attempt in left:
        wait_for(partial(_goes_on_after, system, attempt), WAIT_SECONDS, f"job {attempt.job_number} to go on", 0.05)
    system.wait_whole()
    cancel_all(system)
    return took


def _attempts(system: System, number: int) -> Sequence[Attempt]:
    with system.sessions() as session:
        return session.scalars(select(Attempt).where(Attempt.job_number == number).order_by(Attempt.ordinal)).all()


def _steps_on(system: System, number: int) -> Member:
    """The worker of a job, once it has made a step there."""

    def stepping() -> str | None:
        with system.sessions() as session:
            found = latest(session, number)
        return found[1] if found and found[0].progress and found[0].first_step_at else None

    name = wait_for(stepping, WAIT_SECONDS, f"job {number} to make steps", 0.05)
    return next(member for member in system.workers if member.name == name)


def _goes_on_after(system: System, left: Attempt) -> bool:
    """Whether the job of an attempt that was given back makes steps again; none of those before may be made twice."""
    system.tend()
    following = _attempts(system, left.job_number)[1:]
    if not following or following[-1].first_step_at is None:
        return False
    made = (left.progress or {})["step"]
    assert following[0].resumed_step >= made, (
        f"job {left.job_number} had made {made} steps: {following[0].resumed_step}"
    )
    return True


def main() -> int:
    """Measure and print; 1 if a promise was not kept."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # whatever ends us, everything is cleared up
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=20)
    n = parser.parse_args().n
    say(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with short_home() as home, running(home, History(), workers=2, apis=1, hurt=False) as system:
        cancels = [cancelled(system) for _ in range(n)]
        say(table("cancel → final, trainer gone", cancels))
        stops = [stopped(system) for _ in range(n)]
        say(table("SIGTERM → exit 0, jobs back", stops))
    say(f"promised: {CANCEL_SECONDS:g} s, {STOP_SECONDS:g} s; load {os.getloadavg()[0]:.1f}")
    return int(max(cancels) > CANCEL_SECONDS or max(stops) > STOP_SECONDS)


if __name__ == "__main__":
    raise SystemExit(main())
