"""Jobs for the checks, and what the database says of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from stoker.client.client import Client
from stoker.client.job import Job
from tests.containers.installation import Installation
from tests.support.waiting import wait_for

SMALL: dict[str, Any] = {"device": "cpu", "memory": "200MB", "cpus": 0.5, "dataset": "digits"}
SCRIPT: dict[str, Any] = {"device": "cpu", "memory": "900MB", "cpus": 0.5}
OWN_CODE = Path(__file__).parent / "own_code"
SECONDS = 240.0  # for anything to happen; a machine that is busy with other things is slow
LOOK_SECONDS = 0.2  # each look costs several processes some time, which what is waited for needs as well
T = TypeVar("T")


def wait(condition: Callable[[], T], what: str) -> T:
    """Return the first true value of ``condition()``; fails, naming ``what`` was waited for, after four minutes."""
    return wait_for(condition, SECONDS, what, LOOK_SECONDS)


@contextmanager
def endless(stack: Installation, client: Client, **fields: Any) -> Iterator[Job]:
    """A job that trains until it is cancelled, and has its first checkpoint."""
    job = client.train(**SMALL | {"epochs": 100_000, "checkpoint": {"every": "100 steps"}, "name": "endless"} | fields)
    try:
        wait(lambda: checkpoints(stack, job.number) > 0, f"a checkpoint of job {job.number}")
        yield job
    finally:
        job.refresh()
        if job.state in {"queued", "placed", "running"}:
            job.cancel()
        wait_state(job, "cancelled", "failed", "succeeded")


def wait_state(job: Job, *states: str) -> None:
    """Wait until a job is in one of these states."""
    wait(lambda: job.refresh().state in states, f"job {job.number} to be {' or '.join(states)}")


def checkpoints(stack: Installation, number: int) -> int:
    """How many checkpoints of a job are stored."""
    return int(stack.sql(f"SELECT count(*) FROM checkpoints WHERE job_number = {number}"))


def attempts(stack: Installation, number: int) -> list[tuple[str, str, int]]:
    """The attempts at a job: the worker's name, the outcome (empty while there is none), the step it went on from."""
    rows = stack.sql(
        "SELECT w.name, coalesce(a.outcome, ''), a.resumed_step FROM attempts a JOIN workers w ON w.id = a.worker_id "
        f"WHERE a.job_number = {number} AND a.state <> 'placed' ORDER BY a.ordinal"
    )
    fields = [row.split("|") for row in rows.splitlines()]
    return [(worker, outcome, int(step)) for worker, outcome, step in fields]


def wait_resumed(stack: Installation, job: Job, times: int = 2) -> list[tuple[str, str, int]]:
    """Wait until a job runs for the ``times``-th time, and goes on from a checkpoint; returns its attempts."""

    def seen() -> list[tuple[str, str, int]]:
        made = attempts(stack, job.number)
        return made if len(made) >= times else []

    found = wait(seen, f"job {job.number} to go on")
    assert found[times - 1][2] > 0, f"it began anew: {found}"
    return found


def container_of(stack: Installation, worker: str) -> str:
    """The container of a worker: its name is the host's, which is the container's id."""
    return str(stack.inspect(worker)["Name"]).lstrip("/")


def live_workers(client: Client) -> list[str]:
    """The names of the workers that hold a lease."""
    return sorted(worker["name"] for worker in client.workers() if worker["state"] == "live")
