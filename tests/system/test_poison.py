"""A job that takes its worker down, again and again: it ends, and costs no other job more than time."""

import os
import signal
from collections.abc import Iterator

import pytest

from stoker.jobs.lifecycle import FINAL, State
from stoker.jobs.models import Worker
from stoker.stack.postgres import Postgres
from tests.support.waiting import wait_for
from tests.support.workers import Stage, stage

NAMES = ("one", "two", "three")
GOOD_JOBS = 20


@pytest.fixture
def fleet(postgres: Postgres, template_database: str) -> Iterator[Stage]:
    """A stage with three workers."""
    with stage(postgres, template_database) as made:
        for name in NAMES:
            made.started(name)
        yield made


def worker_of(fleet: Stage, number: int) -> str | None:
    """The worker on which a job makes progress."""
    running = [one for one in fleet.attempts(number) if one.progress and not one.ended_at]
    if not running:
        return None
    with fleet.factory() as session:
        return session.get_one(Worker, running[0].worker_id).name


def test_a_job_that_kills_its_workers_is_suspected_and_every_other_job_succeeds(fleet: Stage) -> None:
    processes = dict(zip(NAMES, fleet.workers, strict=True))
    poison = fleet.odd("stubborn")
    good = [fleet.odd("succeed") for _ in range(GOOD_JOBS)]
    while fleet.job(poison).state not in FINAL:
        name = wait_for(
            lambda: worker_of(fleet, poison) or (fleet.job(poison).state in FINAL and "none"), 60, "its next victim"
        )
        if name in processes:  # a job cannot do it itself here: it is confined
            os.kill(processes[name].pid, signal.SIGKILL)
            processes[name].wait()
            wait_for(lambda name=name: worker_of(fleet, poison) != name, 60, "the loss")  # type: ignore[misc]
            (fleet.home / "run" / f"worker-{name}.health").unlink(missing_ok=True)
            processes[name] = fleet.started(name)  # as its supervisor would
    failure = fleet.job(poison).failure
    assert failure is not None
    assert failure["class"] == "suspected_poison"
    assert len({attempt.worker_id for attempt in fleet.attempts(poison)}) >= 2
    assert [fleet.wait_final(number).state for number in good] == [State.SUCCEEDED] * GOOD_JOBS
