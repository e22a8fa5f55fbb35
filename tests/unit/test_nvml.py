"""What is asked of NVML, against a library that is made up: one GPU cut into MIG instances, one whole, one lost."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from stoker.workers import nvml
from stoker.workers.devices import Seen, in_bus_order, seen_of

GB = 10**9


class Gpu(SimpleNamespace):
    """A GPU or an instance of one."""


def gpu(uuid: str, bus: str = "", minor: int = 0, instances: tuple[Gpu, ...] | None = None, **more: Any) -> Gpu:
    """A whole GPU; with instances, MIG is enabled."""
    return Gpu(uuid=uuid, bus=bus, minor=minor, instances=instances, **{"lost": False, "processes": []} | more)


INSTANCE = gpu("MIG-7", processes=[SimpleNamespace(pid=7, usedGpuMemory=None)])
WHOLE = gpu("GPU-b", "0000:3B:00.0", 1, processes=[SimpleNamespace(pid=8, usedGpuMemory=2 * GB)])
CUT = gpu("GPU-a", "0000:B1:00.0", 0, (INSTANCE,))


class Library:
    """The calls of NVML that are made."""

    def __init__(self, gpus: list[Gpu]) -> None:
        """All answer."""
        self.gpus = gpus

    def handle(self, index: int) -> Gpu:
        """A GPU by number."""
        if self.gpus[index].lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return self.gpus[index]

    @staticmethod
    def mode(device: Gpu) -> tuple[int, int]:
        """Whether MIG is enabled."""
        if device.instances is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return pynvml.NVML_DEVICE_MIG_ENABLE, 0

    @staticmethod
    def instance(device: Gpu, index: int) -> Gpu:
        """An instance by its place; six of the seven are free."""
        if index >= len(device.instances):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return device.instances[index]  # type: ignore[no-any-return]

    @staticmethod
    def drawing(device: Gpu) -> list[Any]:
        """Who draws on a GPU; instances know no graphics."""
        if device is INSTANCE:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return []

    @staticmethod
    def memory(device: Gpu, version: int = 0) -> Any:
        """How much there is; an instance does not tell the newer structure, one GPU falls off the bus just now."""
        if device.uuid == "GPU-d" or (device is INSTANCE and version):
            lost = pynvml.NVML_ERROR_GPU_IS_LOST if device.uuid == "GPU-d" else pynvml.NVML_ERROR_NOT_SUPPORTED
            raise pynvml.NVMLError(lost)
        return SimpleNamespace(total=80 * GB, used=3 * GB)

    def calls(self) -> dict[str, Any]:
        """All of them, by name."""
        return {
            "nvmlDeviceGetCount": lambda: len(self.gpus),
            "nvmlDeviceGetHandleByIndex": self.handle,
            "nvmlDeviceGetHandleByUUID": lambda uuid: next(one for one in self.gpus if one.uuid == uuid.decode()),
            "nvmlDeviceGetPciInfo": lambda device: SimpleNamespace(busId=device.bus.encode()),
            "nvmlDeviceGetMinorNumber": lambda device: device.minor,
            "nvmlDeviceGetMigMode": self.mode,
            "nvmlDeviceGetMaxMigDeviceCount": lambda _: 7,
            "nvmlDeviceGetMigDeviceHandleByIndex": self.instance,
            "nvmlDeviceGetUUID": lambda device: device.uuid,
            "nvmlDeviceGetName": lambda _: b"NVIDIA Fake",
            "nvmlDeviceGetMemoryInfo": self.memory,
            "nvmlDeviceGetGpuInstanceId": lambda _: 3,
            "nvmlDeviceGetComputeInstanceId": lambda _: 0,
            "nvmlDeviceGetComputeRunningProcesses": lambda device: device.processes,
            "nvmlDeviceGetGraphicsRunningProcesses": self.drawing,
        }


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    made = Library([CUT, WHOLE])
    for name, call in made.calls().items():
        monkeypatch.setattr(pynvml, name, call)  # fails for a name that the library does not have
    monkeypatch.setattr(Path, "read_text", lambda path: f"DeviceFileMinor: {len(path.parts)}\nDeviceFileMode: 292\n")
    return made


@pytest.mark.usefixtures("library")
def test_instances_stand_in_place_of_their_gpu_with_the_files_that_let_a_process_into_them() -> None:
    found = nvml.gpus()
    assert [device.uuid for device in in_bus_order(found)] == ["GPU-b", "MIG-7"]
    files = {device["uuid"]: device["files"] for device in found}
    assert files["GPU-b"] == ["/dev/nvidia1"]
    assert files["MIG-7"] == ["/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap9", "/dev/nvidia-caps/nvidia-cap10"]


def test_a_look_tells_who_holds_what_and_to_which_gpu_an_instance_belongs(library: Library) -> None:
    library.gpus += [gpu("GPU-c", lost=True), gpu("GPU-d")]
    found = json.loads(json.dumps(nvml.look()))
    assert {uuid: document["gpu"] for uuid, document in found.items()} == {"MIG-7": "GPU-a", "GPU-b": "GPU-b"}
    assert seen_of(found["GPU-b"], [79]) == Seen({8: 2 * GB}, 3 * GB, (79,))
    assert seen_of(found["MIG-7"], ()) == Seen({7: 0}, None)


@pytest.mark.usefixtures("library")
def test_the_processes_on_a_gpu_are_asked_by_its_uuid() -> None:
    assert nvml.holders("GPU-b") == [(8, 2 * GB)]
