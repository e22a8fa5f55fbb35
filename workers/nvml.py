"""Print this machine's GPUs as JSON, then end: ``python -m stoker.workers.nvml``; [] where there is no driver.

With the UUID of a GPU, print the processes that hold memory of it, as pairs of pid and bytes; with ``driver``, the
driver's version; with ``watch SECONDS``, what each GPU that answers holds after so many seconds, and its errors since.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pynvml


def gpus() -> list[dict[str, Any]]:
    """The GPUs in NVML's order; in place of one with MIG enabled, its instances."""
    found: list[dict[str, Any]] = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        gpu = pynvml.nvmlDeviceGetHandleByIndex(index)
        bus = _text(pynvml.nvmlDeviceGetPciInfo(gpu).busId)
        minor = int(pynvml.nvmlDeviceGetMinorNumber(gpu))
        if _mig(gpu):
            found += [_describe(one, bus) | {"files": _instance_files(one, minor)} for one in _instances(gpu)]
        else:
            found.append(_describe(gpu, bus) | {"files": [f"/dev/nvidia{minor}"]})
    return found


def _instance_files(instance: Any, minor: int) -> list[str]:
    """The GPU's own file, and those by which the driver lets a process into one instance of it."""
    gpu, compute = pynvml.nvmlDeviceGetGpuInstanceId(instance), pynvml.nvmlDeviceGetComputeInstanceId(instance)
    folder = Path(f"/proc/driver/nvidia/capabilities/gpu{minor}/mig/gi{gpu}")
    found = [f"/dev/nvidia{minor}"]
    for access in (folder / "access", folder / f"ci{compute}" / "access"):
        lines = dict(line.split(": ") for line in access.read_text().splitlines())
        found.append(f"/dev/nvidia-caps/nvidia-cap{lines['DeviceFileMinor']}")
    return found


def _mig(gpu: Any) -> bool:
    try:
        return bool(pynvml.nvmlDeviceGetMigMode(gpu)[0] == pynvml.NVML_DEVICE_MIG_ENABLE)
    except pynvml.NVMLError:  # a GPU that knows no MIG
        return False


def _instances(gpu: Any) -> list[Any]:
    found = []
    for index in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(gpu)):
        try:
            found.append(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index))
        except pynvml.NVMLError:  # this place is free
            continue
    return found


def _describe(device: Any, bus: str) -> dict[str, Any]:
    return {
        "uuid": _text(pynvml.nvmlDeviceGetUUID(device)),
        "model": _text(pynvml.nvmlDeviceGetName(device)),
        "memory_bytes": int(pynvml.nvmlDeviceGetMemoryInfo(device).total),
        "bus": bus,
    }


def holders(uuid: str) -> list[tuple[int, int]]:
    """Pid and bytes of those that compute on a GPU or a MIG instance, or draw on it; none where the driver is silent.

    Bytes are 0 where the driver says who, but not how much.
    """
    return _holders(pynvml.nvmlDeviceGetHandleByUUID(uuid.encode()))


def _holders(device: Any) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for ask in (pynvml.nvmlDeviceGetComputeRunningProcesses, pynvml.nvmlDeviceGetGraphicsRunningProcesses):
        try:
            found += [(int(process.pid), int(process.usedGpuMemory or 0)) for process in ask(device)]
        except pynvml.NVMLError:  # MIG instances know no graphics
            continue
    return found


def watch(seconds: float) -> dict[str, dict[str, Any]]:
    """Listen for critical errors, then look at each device that answers: its processes, its memory, its errors."""
    errors = _listen(seconds)
    found: dict[str, dict[str, Any]] = {}
    for index in range(pynvml.nvmlDeviceGetCount()):
        try:
            gpu = pynvml.nvmlDeviceGetHandleByIndex(index)
            xids = errors.get(_text(pynvml.nvmlDeviceGetUUID(gpu)), [])
            for device in _instances(gpu) if _mig(gpu) else [gpu]:
                found[_text(pynvml.nvmlDeviceGetUUID(device))] = _holding(device) | {"xids": xids}
        except pynvml.NVMLError:  # it is lost
            continue
    return found


def _listen(seconds: float) -> dict[str, list[int]]:
    """The errors that come within so many seconds, by the UUID of the whole GPU."""
    errors: dict[str, list[int]] = {}
    awaited, until = pynvml.nvmlEventSetCreate(), time.monotonic() + seconds
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                gpu = pynvml.nvmlDeviceGetHandleByIndex(index)
                pynvml.nvmlDeviceRegisterEvents(gpu, pynvml.nvmlEventTypeXidCriticalError, awaited)
            except pynvml.NVMLError:  # it is lost, or tells of no errors
                continue
        while (left := until - time.monotonic()) > 0:
            try:
                event = pynvml.nvmlEventSetWait_v2(awaited, max(1, round(1000 * left)))
            except pynvml.NVMLError_Timeout:
                break
            except pynvml.NVMLError:  # while a GPU is lost, there is no waiting for the others
                time.sleep(left)
                break
            errors.setdefault(_text(pynvml.nvmlDeviceGetUUID(event.device)), []).append(int(event.eventData))
    finally:
        pynvml.nvmlEventSetFree(awaited)
    return errors


def _holding(device: Any) -> dict[str, Any]:
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(
            device, version=pynvml.nvmlMemory_v2
        )  # apart from what the driver keeps
        used = int(memory.used)
    except pynvml.NVMLError as error:  # an old driver, or an instance that does not say; a lost one is left out
        if error.value == pynvml.NVML_ERROR_GPU_IS_LOST:
            raise
        used = None
    return {"processes": _holders(device), "used_bytes": used}


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def main() -> None:
    """Print what was asked for."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        json.dump(None if sys.argv[1:2] == ["watch"] else [], sys.stdout)
    else:
        json.dump(_answer(sys.argv[1:]), sys.stdout)


def _answer(arguments: list[str]) -> list[Any] | dict[str, Any]:
    if arguments[:1] == ["watch"]:
        return watch(float(arguments[1]))
    if arguments == ["driver"]:
        return [_text(pynvml.nvmlSystemGetDriverVersion())]
    return holders(arguments[0]) if arguments else gpus()


if __name__ == "__main__":
    main()
