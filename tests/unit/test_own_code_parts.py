"""What own code says of itself, and what is measured of it."""

import json
import os
import time
from pathlib import Path

import pytest

from stoker.workers import own_findings
from stoker.workers.devices import Fake, Nothing
from stoker.workers.findings import FindingsRefused
from stoker.workers.usage import Meter
from tests.support.waiting import wait_for


@pytest.mark.parametrize(
    ("document", "accuracy", "noted"),
    [("{}", None, False), ('{"accuracy": 0.9}', 0.9, False), ('{"accuracy": 93.1}', 93.1, True)],
)
def test_a_script_says_what_it_likes_of_itself_and_that_is_marked(
    tmp_path: Path, document: str, accuracy: float | None, noted: bool
) -> None:
    (tmp_path / "result.json").write_text(document)
    found = own_findings.read(tmp_path, {"path": "result.json"}, None)
    assert found.document is not None
    assert found.document["self_reported"] is True
    assert found.document.get("accuracy") == accuracy
    assert bool(found.notes) == noted


def test_a_script_without_a_result_hands_in_none_and_one_that_is_no_document_is_refused(tmp_path: Path) -> None:
    assert own_findings.read(tmp_path, None, None).document is None
    for text in ("[]", '{"loss": NaN}', '{"loss": 1e999}', "x" * 33_000_000):
        (tmp_path / "result.json").write_text(text)
        with pytest.raises(FindingsRefused):
            own_findings.read(tmp_path, {"path": "result.json"}, None)


def test_a_meter_tells_computing_from_waiting(tmp_path: Path) -> None:
    meter, pid = Meter(Nothing(), []), os.getpid()
    meter.look(pid, 10.0)
    began = time.process_time()
    while time.process_time() < began + 0.2:
        pass
    assert not meter.look(pid, 10.5)  # it looks once a second
    assert meter.look(pid, 11.1)
    assert not meter.look(pid, 100.0)  # so little, for so long
    assert meter.cpu_seconds >= 0.2
    assert meter.gpu_bytes is None


def test_a_meter_keeps_the_most_that_a_trainer_held_of_its_devices(tmp_path: Path) -> None:
    pid = os.getpid()

    def hold(size: int) -> Fake:
        memory = {str(pid): size, "1": 9 * 10**9}  # the other one is somebody else
        device = {"uuid": "GPU-a", "model": "H100", "memory_bytes": 80 * 10**9, "bus": "0", "memory": memory}
        (tmp_path / "devices.json").write_text(json.dumps([device]))
        return Fake(tmp_path / "devices.json")

    meter = Meter(hold(5 * 10**9), ["GPU-a"])
    for now, size in ((0.0, 5 * 10**9), (20.0, 3 * 10**9)):
        hold(size)
        meter.look(pid, now)
        wait_for(lambda: meter.answered, 30, "the driver's answer")
        meter.look(pid, now + 1)
    assert meter.gpu_bytes == 5 * 10**9
    meter.close()
