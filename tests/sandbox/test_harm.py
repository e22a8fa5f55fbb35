"""What a job does to the machine harms that job alone: a neighbour on the same worker goes on, and succeeds."""

from collections.abc import Iterator

import pytest

from stoker.stack.postgres import Postgres
from tests.support.waiting import wait_for
from tests.support.workers import Stage, stage, tree


@pytest.fixture
def busy(postgres: Postgres, template_database: str) -> Iterator[Stage]:
    """A worker that runs a neighbour."""
    with stage(postgres, template_database) as made:
        made.started("one", worker_memory_bytes=2 * 10**9)
        yield made


def steps(busy: Stage, number: int) -> int:
    """How far a job has come."""
    progress = busy.wait_progress(number).progress
    assert progress is not None
    return int(progress["step"])


@pytest.mark.parametrize(
    ("behaviour", "memory", "klass", "evidence"),
    [
        ("hoard", 10**8, "host_out_of_memory", "resources.memory is 0.10 GB"),
        ("bomb", 10**9, "user_error", "processes and threads; a job of its size may have 131"),
        ("chain", 10**9, "user_error", "processes and threads; a job of its size may have 131"),
    ],
)
def test_a_job_that_takes_too_much_is_killed_alone(
    busy: Stage, behaviour: str, memory: int, klass: str, evidence: str
) -> None:
    neighbour = busy.odd("obedient")
    step = steps(busy, neighbour)
    number = busy.odd(behaviour, resources={"cpus": 0.1, "memory": memory})
    job = busy.wait_final(number)
    failure = job.failure or {}
    assert failure["class"] == klass
    assert evidence in failure["evidence"]
    wait_for(lambda: len(tree(busy.workers[0].pid)) == 4, 60, "the end of all that it started")  # spare, neighbour
    wait_for(lambda: steps(busy, neighbour) > step, 60, "the neighbour's next step")
    if behaviour == "hoard":
        assert memory < (busy.attempts(number)[-1].peak_memory_bytes or 0) < 20 * memory
