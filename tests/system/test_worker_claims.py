"""What a trainer blames on the worker's devices and disk, at no cost to itself: believed where the worker sees it."""

import json
from collections.abc import Iterator

import pytest
from sqlalchemy import select

from stoker.jobs.lifecycle import Outcome, State
from stoker.jobs.models import Event
from stoker.stack.postgres import Postgres
from tests.support.own_code import SMALL, submit_script
from tests.support.waiting import wait_for
from tests.support.workers import Stage, stage

DEVICE = {"uuid": "GPU-1111", "model": "NVIDIA Fake", "memory_bytes": 80 * 10**9, "bus": "0000:3B:00.0"}
GPU = {"device": "gpu", "gpus": 1, "cpus": 0.1, "memory": 2 * 10**8, "gpu_memory": None}


@pytest.fixture(scope="module")
def claimed(postgres: Postgres, template_database: str) -> Iterator[Stage]:
    """A stage with one worker that offers a device which is not there."""
    with stage(postgres, template_database) as made:
        path = made.home / "gpus.json"
        path.write_text(json.dumps([DEVICE]))
        made.started("one", worker_devices=f"fake:{path}", cancel_grace_seconds=0.5)
        yield made


def told(claimed: Stage) -> list[tuple[str, str]]:
    """What was noted of devices, oldest first."""
    with claimed.factory() as session:
        rows = session.execute(select(Event.name, Event.reason).where(Event.name.like("device_%")).order_by(Event.id))
        return [(name, reason) for name, reason in rows]


def test_a_sound_device_that_a_trainer_calls_broken_stays_in_use_and_the_job_pays(claimed: Stage) -> None:
    number = claimed.odd("device_error", resources=GPU, max_retries=1)
    job = claimed.wait_final(number)
    assert (job.state, job.retries_used) == (State.SUCCEEDED, 1)
    first = claimed.attempts(number)[0].failure
    assert first is not None
    assert (first["class"], first["unproven"]) == ("device_error", True)
    assert first["evidence"] == "CUDA error: unspecified\nthe worker found nothing wrong with its devices"
    assert told(claimed) == []


def test_a_device_that_fails_is_out_of_use_until_a_training_step_works_on_it(claimed: Stage) -> None:
    number = claimed.odd("broken_device", resources=GPU)
    wait_for(lambda: told(claimed), 30, "the device to be out of use")
    (claimed.home / "marks" / "broken").unlink()
    job = claimed.wait_final(number)
    assert (job.state, job.retries_used) == (State.SUCCEEDED, 0)
    assert [one.outcome for one in claimed.attempts(number)] == [Outcome.FAILED, Outcome.SUCCEEDED]
    wait_for(lambda: len(told(claimed)) == 2, 30, "the self-test")
    assert told(claimed) == [
        ("device_quarantined", "a training step failed on it after its trainer had reported a device error"),
        ("device_back", "self-test passed"),
    ]


CLAIMS = """
import stoker
from stoker.training.failure import TrainingFailed
stoker.current_run()
raise TrainingFailed("{klass}", "CUDA error: an illegal memory access", "")
"""


@pytest.mark.parametrize("klass", ["device_error", "disk_full"])
def test_a_script_that_blames_the_worker_each_time_does_not_run_for_ever(claimed: Stage, klass: str) -> None:
    resources = SMALL | {"device": "gpu", "gpus": 1}
    number = submit_script(claimed, CLAIMS.format(klass=klass), resources=resources, max_retries=1)
    job = claimed.wait_final(number)
    assert (job.state, job.failure and job.failure["class"]) == (State.FAILED, klass)
    assert len(claimed.attempts(number)) == 2
    assert {name for name, _ in told(claimed)} <= {"device_quarantined", "device_back"}
