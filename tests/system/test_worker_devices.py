"""A worker and its devices, which are made up in a file: what it tries, refuses, shares out and takes back."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from stoker.jobs.lifecycle import State
from stoker.jobs.models import Device, Pool
from stoker.stack.postgres import Postgres
from tests.support.waiting import wait_for
from tests.support.workers import Stage, stage

GB = 10**9
UUIDS = ("GPU-1", "GPU-2", "GPU-broken", "MIG-4")
GPU = {"device": "gpu", "gpus": 1, "cpus": 0.1, "memory": 2 * 10**8, "gpu_memory": None}


class Fleet:
    """One worker, and the file in which its devices are."""

    def __init__(self, stage: Stage) -> None:
        """The second device is in use by this process when the worker starts; on the third nothing works."""
        self.stage, self.path = stage, stage.home / "gpus.json"
        self.write("GPU-2", memory={str(os.getpid()): 9 * GB})
        stage.started("one", worker_devices=f"fake:{self.path}", cancel_grace_seconds=0.5)

    def write(self, which: str = "", **how: Any) -> None:
        """Say how one device is; all others are as they should be."""
        listed = []
        for place, uuid in enumerate(UUIDS):
            device = {"uuid": uuid, "model": "NVIDIA Fake", "memory_bytes": 80 * GB, "bus": f"0000:{place}0:00.0"}
            listed.append(device | (how if uuid == which else {}))
        draft = Path(f"{self.path}.new")
        draft.write_text(json.dumps(listed))
        draft.rename(self.path)

    def refused(self) -> dict[str, str]:
        """The devices that are out of use, and why."""
        with self.stage.factory() as session:
            rows = session.execute(
                select(Device.uuid, Device.quarantine_reason).where(Device.quarantined_at.is_not(None))
            )
            return {uuid: reason or "" for uuid, reason in rows}

    def seen_by(self, **fields: object) -> dict[str, Any]:
        """What the trainer of a job finds around it."""
        number = self.stage.odd("describe", **fields)
        assert self.stage.wait_final(number).state == State.SUCCEEDED
        return dict(json.loads(self.stage.printed(number)))


@pytest.fixture(scope="module")
def fleet(postgres: Postgres, template_database: str) -> Iterator[Fleet]:
    with stage(postgres, template_database) as made:
        yield Fleet(made)


@pytest.fixture(autouse=True)
def healed(fleet: Fleet) -> Iterator[None]:
    """Afterwards everything is as it should be, but for what is broken."""
    yield
    fleet.write()
    wait_for(lambda: fleet.refused().keys() == {"GPU-broken"}, 30, "the devices to be back")


def test_each_device_is_tried_at_the_start_and_one_that_others_use_is_not_offered(fleet: Fleet) -> None:
    name = Path("/proc/self/comm").read_text().strip()
    assert fleet.refused() == {
        "GPU-2": f"in use by process {os.getpid()} ({name}), 9.0 GB, which is not Stoker's",
        "GPU-broken": "a training step failed on it at the start (status 1)",
    }
    seen = fleet.seen_by(resources=GPU | {"gpus": 2})
    assert seen["environment"]["CUDA_VISIBLE_DEVICES"] == "GPU-1,MIG-4"


def test_a_stranger_that_comes_keeps_jobs_off_until_it_is_gone(fleet: Fleet) -> None:
    fleet.write("GPU-1", processes=[os.getpid()])
    wait_for(lambda: "GPU-1" in fleet.refused(), 30, "the stranger to be seen")
    seen = fleet.seen_by(resources=GPU | {"gpus": 2})
    assert seen["environment"]["CUDA_VISIBLE_DEVICES"] == "GPU-2,MIG-4"


@pytest.mark.parametrize(
    ("how", "words"), [({"lost": True}, "the driver does not list it any more"), ({"xids": [79]}, "Xid 79")]
)
def test_a_device_that_is_lost_is_out_of_use_and_its_job_runs_elsewhere(
    fleet: Fleet, how: dict[str, object], words: str
) -> None:
    number = fleet.stage.odd("stubborn", resources=GPU)
    fleet.stage.wait_progress(number)
    with fleet.stage.factory() as session:
        (uuid,) = session.scalars(select(Device.uuid).where(Device.used_milli > 0))
    fleet.write(uuid, **how)
    wait_for(lambda: len(fleet.stage.attempts(number)) == 2, 60, "another attempt")
    first = fleet.stage.attempts(number)[0]
    assert first.failure is not None
    assert first.failure["class"] == "device_error"
    assert words in first.failure["evidence"]
    assert words in fleet.refused()[uuid]
    fleet.stage.wait_progress(number)
    fleet.stage.cancel(number)
    fleet.stage.wait_final(number)


def test_a_job_that_shares_a_device_is_kept_to_its_part_of_the_memory(fleet: Fleet) -> None:
    assert "PYTORCH_ALLOC_CONF" not in fleet.seen_by(resources=GPU)["environment"]
    with fleet.stage.factory() as session:
        session.execute(update(Pool).values(fractions=True))
        session.commit()
    seen = fleet.seen_by(resources=GPU | {"gpus": 0.25})
    assert seen["environment"]["PYTORCH_ALLOC_CONF"] == "per_process_memory_fraction:0.2437"
