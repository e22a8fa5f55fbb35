"""What outages cost: ``python -m tests.faults.outage [--posts 100] [--seconds 60]``.

Redis down: how long a submit takes, how soon the first job starts when Redis is back, and how soon all run whose
messages were deleted. PostgreSQL down with four jobs running: no new attempt, no step made twice.
"""

import argparse
import os
import platform
import signal
import sys
import threading
import time
from contextlib import suppress
from functools import partial

from sqlalchemy import func, select

from stoker.errors import AlreadyFinal
from stoker.jobs.lifecycle import AttemptState
from stoker.jobs.models import Attempt, Job
from stoker.jobs.records import cuts
from stoker.jobs.submissions import cancel
from stoker.workers.transactions import repeat
from tests.faults.clients import Api
from tests.faults.collecting import outcome_of
from tests.faults.history import History
from tests.faults.recipes import spec
from tests.faults.recovery import submit_endless, table
from tests.faults.report import say
from tests.faults.system import System, running
from tests.support.services import short_home
from tests.support.waiting import wait_for

WAIT_SECONDS = 120.0
JOBS = 4


def post(system: System, name: str, count: int) -> list[float]:
    """Submit jobs one after the other; the seconds that each took."""
    api, took = Api(system.urls, system.token, system.history, 0), []
    for index in range(count):
        began = time.monotonic()
        assert api.submit(f"{name}-{index}", "plain", threading.Event(), spec("plain")) is not None
        took.append(time.monotonic() - began)
    api.close()
    return took


def claimed(system: System) -> int:
    """How many attempts were claimed so far."""
    with system.sessions() as session:
        return session.scalar(select(func.count()).where(Attempt.claimed_at.is_not(None))) or 0


def cancel_all(system: System) -> None:
    """Cancel what has not ended, and wait until it has."""
    with system.sessions() as session:
        numbers = session.scalars(select(Job.number).where(Job.finished_at.is_(None))).all()
    for number in numbers:
        asked = partial(cancel, number=number, actor="bench")
        with suppress(AlreadyFinal):  # it has just ended
            repeat(system.sessions, asked, go_on=lambda: True, what="cancel")

    def ended() -> bool:
        with system.sessions() as session:
            return not session.scalar(select(func.count()).where(Job.finished_at.is_(None)))

    wait_for(ended, WAIT_SECONDS, "the cancelled jobs to end")


def redis_down(system: System, posts: int) -> None:
    """Measure submits without Redis, and the first start with it."""
    say(table("submit, Redis up", post(system, "up", posts)))
    cancel_all(system)
    system.redis.child.kill()
    say(table("submit, Redis down", post(system, "down", posts)))
    before = claimed(system)
    system.redis.restart()
    began = time.monotonic()
    wait_for(lambda: claimed(system) > before, WAIT_SECONDS, "a job to start")
    say(table("Redis back → first start", [time.monotonic() - began]))
    cancel_all(system)


def messages_gone(system: System) -> None:
    """Measure how soon jobs run whose messages were all deleted."""
    before = claimed(system)
    with system.redis.client() as client:
        names = [f"worker.{member.name}" for member in system.workers]
        stop = threading.Event()

        def empty() -> None:
            while not stop.is_set():
                client.delete(*names)

        thread = threading.Thread(target=empty)
        thread.start()
        post(system, "gone", JOBS)
        wait_for(lambda: _placed(system) >= JOBS, WAIT_SECONDS, "the jobs to be placed")
        stop.set()
        thread.join()
    began = time.monotonic()
    wait_for(lambda: claimed(system) - before >= JOBS, WAIT_SECONDS, "the jobs to start")
    say(table("messages deleted → all run", [time.monotonic() - began]))
    cancel_all(system)


def _placed(system: System) -> int:
    with system.sessions() as session:
        begun = Attempt.state.in_([AttemptState.PLACED, AttemptState.RUNNING])
        return session.scalar(select(func.count()).where(begun)) or 0


def postgres_down(system: System, seconds: float) -> bool:
    """Stop PostgreSQL for a while under running jobs; whether nothing was lost."""
    numbers = submit_endless(system, JOBS)
    wait_for(lambda: _steps(system, numbers) is not None, WAIT_SECONDS, "all jobs to make steps")
    system.postgres.child.kill()
    time.sleep(seconds)  # the outage is a time: there is nothing else to wait for
    system.postgres.restart()
    seen = _steps(system, numbers)
    wait_for(lambda: _further(system, numbers, seen), WAIT_SECONDS, "all jobs to go on")
    with system.sessions() as session:
        attempts = session.scalar(select(func.count()).where(Attempt.job_number.in_(numbers))) or 0
        cut = [step for number in numbers for step in cuts(session, number).values() if step is not None]
        curves = [outcome_of(session, number).series["epoch_loss"][0] for number in numbers]
    twice = sum(len(steps) - len(set(steps)) for steps in curves)
    again = len(cut) + twice
    say(f"PostgreSQL down {seconds:g} s under {JOBS} jobs: {attempts - JOBS} new attempts, {again} steps made again")
    cancel_all(system)
    return attempts == JOBS and not cut and not twice


def _steps(system: System, numbers: list[int]) -> dict[int, int] | None:
    """The last step of each job; None before all have made one."""
    with system.sessions() as session:
        rows = session.execute(select(Attempt.job_number, Attempt.progress).where(Attempt.job_number.in_(numbers)))
        found = {
            number: int(progress["step"]) for number, progress in rows if progress and progress["phase"] == "train"
        }
    return found if found.keys() == set(numbers) and all(found.values()) else None


def _further(system: System, numbers: list[int], seen: dict[int, int] | None) -> bool:
    now = _steps(system, numbers)
    return now is not None and seen is not None and all(now[number] > seen[number] + 100 for number in numbers)


def main() -> int:
    """Measure and print; 1 if a promise was not kept."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # whatever ends us, everything is cleared up
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    say(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with short_home() as home, running(home, History(), workers=2, apis=1, hurt=False) as system:
        redis_down(system, given.posts)
        messages_gone(system)
        kept = postgres_down(system, given.seconds)
    return int(not kept)


if __name__ == "__main__":
    raise SystemExit(main())
