"""How soon a job runs elsewhere after ``kill -9`` of its worker: ``python -m tests.faults.recovery [--n 20]``.

Four workers, a lease of two seconds, one job that never ends. The clock starts before the kill and stops when the
database knows that the job has claimed, and has made a step, on another worker. The killed worker is started again
only then: nobody tells the others that it is dead. Between two kills, a new checkpoint is waited for, and until there
are two workers to go to; others may still be starting, which costs those that run the processor they need.
"""

import argparse
import os
import platform
import signal
import statistics
import sys
import threading
import time
import uuid
from collections.abc import Callable

from sqlalchemy import select
from sqlalchemy.orm import Session

from stoker.jobs.models import Attempt, Job, Worker
from tests.faults.clients import Api
from tests.faults.history import History
from tests.faults.recipes import spec
from tests.faults.report import say
from tests.faults.system import LEASE_SECONDS, System, running
from tests.support.services import short_home
from tests.support.waiting import wait_for

ENDLESS = 100_000  # epochs
WAIT_SECONDS = 300.0  # on a machine that has other things to do, a start alone may take a minute
WORKERS, SPARE = 4, 2  # SPARE: to which a job can go when its worker is killed
TOLD = 25  # kills between two tables
PROMISE_SECONDS = LEASE_SECONDS + 5.0


def submit_endless(system: System, count: int) -> list[int]:
    """Submit jobs that run until they are cancelled."""
    numbers = []
    api = Api(system.urls, system.token, system.history, 0)
    for _ in range(count):
        body = spec("plain")
        body["train"]["epochs"] = ENDLESS
        number = api.submit(f"endless-{uuid.uuid4()}", "endless", threading.Event(), body)
        assert number is not None, "the job was refused"
        numbers.append(number)
    api.close()
    return numbers


def latest(session: Session, number: int) -> tuple[Attempt, str] | None:
    """A job's latest attempt, and the name of its worker; None before the first."""
    statement = (
        select(Attempt, Worker.name)
        .join(Worker, Worker.id == Attempt.worker_id)
        .where(Attempt.job_number == number)
        .order_by(Attempt.ordinal.desc())
        .limit(1)
    )
    row = session.execute(statement).one_or_none()
    return (row[0], row[1]) if row else None


def measure(system: System, number: int) -> tuple[float, float]:
    """Kill the worker of a job; seconds until another has claimed it, and until its next step."""
    with system.sessions() as session:
        found = latest(session, number)
        assert found is not None, "it runs, so it has an attempt"
        before, name = found
        checkpoint = session.get_one(Job, number).latest_checkpoint_id
    member = next(one for one in system.workers if one.name == name)
    began = time.monotonic()
    system.expect_down(member, WAIT_SECONDS)
    member.child.kill()
    claimed = _until(
        system, number, lambda attempt: attempt.ordinal > before.ordinal and attempt.claimed_at is not None
    )
    stepped = _until(system, number, lambda attempt: attempt.first_step_at is not None)
    system.expect_down(member, 0.0)
    wait_for(lambda: _safe_again(system, number, checkpoint), WAIT_SECONDS, "a new checkpoint, and workers to go to")
    return claimed - began, stepped - began


def _until(system: System, number: int, true: Callable[[Attempt], bool]) -> float:
    def looked() -> bool:
        system.tend()
        with system.sessions() as session:
            found = latest(session, number)
        return found is not None and true(found[0])

    wait_for(looked, WAIT_SECONDS, f"job {number} on another worker")
    return time.monotonic()


def _safe_again(system: System, number: int, before: int | None) -> bool:
    system.tend()
    with system.sessions() as session:
        found = latest(session, number)
        stored = session.get_one(Job, number).latest_checkpoint_id != before
    return stored and found is not None and len(system.live() - {found[1]}) >= SPARE


def table(name: str, seconds: list[float]) -> str:
    """One line of the table."""
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    times = (statistics.median(ordered), p99, ordered[-1])
    return f"{name:<28} n {len(ordered):>4}  p50 {times[0]:6.3f} s  p99 {times[1]:6.3f} s  worst {times[2]:6.3f} s"


def main() -> int:
    """Measure and print; 1 if the promise was not kept."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # whatever ends us, everything is cleared up
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10)
    n = parser.parse_args().n
    say(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, lease {LEASE_SECONDS:g} s")
    with short_home() as home, running(home, History(), workers=WORKERS, apis=1, hurt=False) as system:
        (number,) = submit_endless(system, 1)
        _until(system, number, lambda attempt: attempt.first_step_at is not None)
        times: list[tuple[float, float]] = []
        for _ in range(n):
            times.append(measure(system, number))
            if len(times) % TOLD == 0 or len(times) == n:
                tell(times)
    say(f"promised: {PROMISE_SECONDS:g} s")
    return int(max(one[0] for one in times) > PROMISE_SECONDS)


def tell(times: list[tuple[float, float]]) -> None:
    """Print what was measured so far, and how busy the machine is."""
    say(f"load {os.getloadavg()[0]:.1f}")
    say(table("kill -9 → claimed elsewhere", [one[0] for one in times]))
    say(table("kill -9 → its next step", [one[1] for one in times]))


if __name__ == "__main__":
    raise SystemExit(main())
