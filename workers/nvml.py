"""Print this machine's GPUs as JSON, then end: ``python -m stoker.workers.nvml``; [] where there is no driver.

With the UUID of a GPU, print the processes that hold memory of it, as pairs of pid and bytes; with ``driver``, the
driver's version; with ``look``, what each GPU that answers holds; with ``listen``, a line for each critical error.
"""

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pynvml

WAIT_MILLISECONDS = 500  # between two looks whether to end


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


def look() -> dict[str, dict[str, Any]]:
    """Each device that answers: the GPU that it is, or is an instance of, its processes, its memory."""
    found: dict[str, dict[str, Any]] = {}
    for gpu in _answering():
        try:
            uuid = _text(pynvml.nvmlDeviceGetUUID(gpu))
            for device in _instances(gpu) if _mig(gpu) else [gpu]:
                found[_text(pynvml.nvmlDeviceGetUUID(device))] = _holding(device) | {"gpu": uuid}
        except pynvml.NVMLError:  # it is lost
            continue
    return found


def _answering() -> Iterator[Any]:
    for index in range(pynvml.nvmlDeviceGetCount()):
        try:
            yield pynvml.nvmlDeviceGetHandleByIndex(index)
        except pynvml.NVMLError:  # it is lost
            continue


def listen() -> None:
    """Tell each critical error from now on, until standard input ends: a line of UUID of the whole GPU and number.

    A line before them tells which GPUs are heard, and another one when one of them is lost. Each has an event set of
    its own, for where one is lost there is no waiting; the driver keeps what comes between two waits.
    """
    sets = {uuid: awaited for gpu in _answering() for uuid, awaited in _registered(gpu)}
    heard, stopping = set(sets), threading.Event()
    _say(hears=sorted(heard))

    def lose(uuid: str) -> None:
        heard.discard(uuid)
        _say(hears=sorted(heard))

    threads = [threading.Thread(target=_hear, args=(uuid, sets[uuid], lose, stopping)) for uuid in sets]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stopping.set()
    for thread in threads:
        thread.join()


def _registered(gpu: Any) -> Iterator[tuple[str, Any]]:
    """The UUID of a GPU and its event set, which gets none where the GPU tells of no errors; nothing of a lost one."""
    try:
        uuid, awaited = _text(pynvml.nvmlDeviceGetUUID(gpu)), pynvml.nvmlEventSetCreate()
        with contextlib.suppress(pynvml.NVMLError_NotSupported):
            pynvml.nvmlDeviceRegisterEvents(gpu, pynvml.nvmlEventTypeXidCriticalError, awaited)
        yield uuid, awaited
    except pynvml.NVMLError:
        return


def _hear(uuid: str, awaited: Any, lose: Callable[[str], None], stopping: threading.Event) -> None:
    while True:
        last = stopping.is_set()  # what came before is still told
        try:
            xid = pynvml.nvmlEventSetWait_v2(awaited, WAIT_MILLISECONDS).eventData
        except pynvml.NVMLError as error:
            if last:
                return
            if error.value != pynvml.NVML_ERROR_TIMEOUT:  # should it be back, it has to be registered again
                lose(uuid)
                stopping.wait(WAIT_MILLISECONDS / 1000)
        else:
            _say(gpu=uuid, xid=int(xid))


def _say(**words: Any) -> None:
    os.write(sys.stdout.fileno(), f"{json.dumps(words)}\n".encode())  # a line at once, whichever thread says it


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
        json.dump(None if sys.argv[1:] == ["look"] else [], sys.stdout)
    else:
        if sys.argv[1:] == ["listen"]:
            listen()
        else:
            json.dump(_answer(sys.argv[1:]), sys.stdout)


def _answer(arguments: list[str]) -> list[Any] | dict[str, Any]:
    if arguments == ["look"]:
        return look()
    if arguments == ["driver"]:
        return [_text(pynvml.nvmlSystemGetDriverVersion())]
    return holders(arguments[0]) if arguments else gpus()


if __name__ == "__main__":
    main()
