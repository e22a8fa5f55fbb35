"""GPUs behind one seam: what is there, and how a trainer is told which are its own. Always by UUID, never by number:
NVML and CUDA count in different orders, and a number means another device once one is masked or lost."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from stoker.errors import SettingInvalid
from stoker.jobs.fleet import OfferedDevice
from stoker.log import Events
from stoker.quoting import quoted
from stoker.workers.listener import Listener

events = Events(__name__)
PROBE_SECONDS = 30.0
CONTEXT_BYTES = 500 * 10**6  # of a device's memory that a process with CUDA holds beside what torch allocates
_DRIVER_FILES = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")
_UUID = re.compile(r"(GPU|MIG)-[0-9A-Za-z/-]{1,100}")


@dataclass(frozen=True, slots=True)
class Seen:
    """What the driver says of one device at one moment."""

    processes: dict[int, int] = field(default_factory=dict)  # pid -> bytes held; 0: the driver does not say
    used_bytes: int | None = None  # by all of them together, also those of other containers; None: it does not say
    xids: tuple[int, ...] = ()  # critical errors since the last look that told of it, by NVIDIA's numbers


class Inventory(Protocol):
    """Where a worker learns of its devices."""

    def look(self, in_seconds: float) -> dict[str, Seen] | None:
        """All devices that answer, by UUID, so much later. None: it cannot be asked. Errors are heard from the first
        look on, until ``close``."""

    def close(self) -> None:
        """Hear no more errors."""

    def heard(self, uuid: str) -> tuple[int, ...]:
        """Critical errors of a device that no look has told of yet; the next one still will."""

    def devices(self) -> tuple[OfferedDevice, ...]:
        """The devices that jobs may use, in PCI bus order."""

    def processes(self, uuid: str) -> frozenset[int]:
        """The processes, by pid, that hold memory of a device; of another container's none may be seen."""

    def memory(self, uuid: str) -> dict[int, int]:
        """Bytes that each of these processes holds, as far as the driver says."""

    def driver(self) -> str | None:
        """The driver's version; None: there is none."""

    def torch_device(self, uuids: Sequence[str]) -> str:
        """What a trainer that was given these devices calls the first of them: ``cpu`` or ``cuda:0``."""

    def files(self, uuids: Sequence[str]) -> tuple[str, ...]:
        """The device files that a trainer with these devices must open, and no others."""


def cuda_environment(uuids: Sequence[str]) -> dict[str, str]:
    """What a trainer needs in its environment to see these devices, in this order, and no others."""
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(uuids)}


def limit_memory(environment: Mapping[str, str], share: float, memory_bytes: int) -> dict[str, str]:
    """An environment in which torch takes no more than its share of a device; all of it: nothing is changed.

    Cooperative: it binds torch's own allocator, in each process by itself, and a program may lift it.
    """
    if share >= 1:
        return dict(environment)
    fraction = max(0.01, share - CONTEXT_BYTES / memory_bytes)
    own = environment.get("PYTORCH_ALLOC_CONF") or environment.get("PYTORCH_CUDA_ALLOC_CONF")
    words = [word for word in (own, f"per_process_memory_fraction:{fraction:.4f}") if word]
    kept = {name: value for name, value in environment.items() if name != "PYTORCH_CUDA_ALLOC_CONF"}
    return kept | {"PYTORCH_ALLOC_CONF": ",".join(words)}


def inventory(setting: str) -> Inventory:
    """The inventory that STOKER_WORKER_DEVICES names: ``auto``, ``none`` or ``fake:FILE.json``.

    Raises SettingInvalid.
    """
    if setting == "auto":
        return Nvml()
    if setting == "none":
        return Nothing()
    if setting.startswith("fake:"):
        return Fake(Path(setting.removeprefix("fake:")))
    raise SettingInvalid(
        "STOKER_WORKER_DEVICES", f"{quoted(setting)} is not known", "use auto, none, or fake:FILE.json"
    )


@dataclass(frozen=True, slots=True)
class Nothing:
    """No devices: everything runs on the CPU."""

    def look(self, in_seconds: float) -> dict[str, Seen] | None:  # noqa: ARG002 - the seam's signature
        """None."""
        return {}

    def close(self) -> None:
        """Nothing to do."""

    def heard(self, uuid: str) -> tuple[int, ...]:  # noqa: ARG002 - the seam's signature
        """None."""
        return ()

    def devices(self) -> tuple[OfferedDevice, ...]:
        """None."""
        return ()

    def processes(self, uuid: str) -> frozenset[int]:  # noqa: ARG002 - the seam's signature
        """None."""
        return frozenset()

    def memory(self, uuid: str) -> dict[int, int]:  # noqa: ARG002 - the seam's signature
        """None."""
        return {}

    def driver(self) -> str | None:
        """None."""
        return None

    def torch_device(self, uuids: Sequence[str]) -> str:  # noqa: ARG002 - the seam's signature
        """The CPU."""
        return "cpu"

    def files(self, uuids: Sequence[str]) -> tuple[str, ...]:  # noqa: ARG002 - the seam's signature
        """None."""
        return ()


@dataclass(frozen=True, slots=True)
class Nvml:
    """What NVML lists, asked in processes of its own: a driver that hangs or crashes must not take the worker along."""

    _files: dict[str, list[str]] = field(default_factory=dict)  # of each device that was listed
    _gpus: dict[str, str] = field(default_factory=dict)  # by what it is part of: itself, but for MIG
    _listener: Listener = field(default_factory=lambda: Listener(_command("listen")), compare=False)

    def look(self, in_seconds: float) -> dict[str, Seen] | None:
        """What NVML says."""
        time.sleep(in_seconds)
        try:
            found: dict[str, Any] | None = _query("look")
            if found is None:
                return None
            self._gpus.update((uuid, document["gpu"]) for uuid, document in found.items())
            errors = self._listener.hear({document["gpu"] for document in found.values()})
        except (subprocess.SubprocessError, OSError, ValueError) as error:
            events.warning("nvml_not_asked", error=str(error)[:500])
            return None
        return {uuid: seen_of(document, errors.get(document["gpu"], ())) for uuid, document in found.items()}

    def close(self) -> None:
        """End the process that listens."""
        self._listener.close()

    def heard(self, uuid: str) -> tuple[int, ...]:
        """What the process that listens has told."""
        return tuple(self._listener.heard(self._gpus.get(uuid, uuid)))

    def devices(self) -> tuple[OfferedDevice, ...]:
        """The GPUs, or their MIG instances where MIG is on; none without a driver."""
        found = _ask_nvml()
        self._files.update((device["uuid"], device["files"]) for device in found)
        return in_bus_order(found)

    def processes(self, uuid: str) -> frozenset[int]:
        """What NVML says; none where it cannot be asked."""
        return frozenset(pid for pid, _ in _ask_nvml(uuid))

    def memory(self, uuid: str) -> dict[int, int]:
        """What NVML says; nothing where it cannot be asked."""
        return {pid: size for pid, size in _ask_nvml(uuid) if size}

    def driver(self) -> str | None:
        """What NVML says."""
        return next(iter(_ask_nvml("driver")), None)

    def torch_device(self, uuids: Sequence[str]) -> str:
        """CUDA's first visible device, if any was given."""
        return "cuda:0" if uuids else "cpu"

    def files(self, uuids: Sequence[str]) -> tuple[str, ...]:
        """What the driver needs of every process, and what belongs to these devices; none without devices."""
        own = [path for uuid in uuids for path in self._files.get(uuid, ())]
        return (*_DRIVER_FILES, *dict.fromkeys(own)) if uuids else ()


def seen_of(document: dict[str, Any], xids: Iterable[int]) -> Seen:
    """What a look found at one device, as it was written down, and the errors that were heard of it."""
    held = {int(pid): int(size) for pid, size in document["processes"]}
    return Seen(held, document["used_bytes"], tuple(xids))


def _command(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "stoker.workers.nvml", *arguments)


def _query(*arguments: str) -> Any:
    """Ask in a process of its own.

    Raises SubprocessError, OSError, ValueError.
    """
    asked = subprocess.run(_command(*arguments), capture_output=True, timeout=PROBE_SECONDS, check=True)
    return json.loads(asked.stdout)


def _ask_nvml(*arguments: str) -> list[Any]:
    try:
        return list(_query(*arguments))
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        events.warning("nvml_not_asked", error=str(error)[:500])
        return []


@dataclass(frozen=True, slots=True)
class Fake:
    """Devices from a file, for tests where there is no GPU; trainers that are given them compute on the CPU.

    The file is a list of ``{"uuid", "model", "memory_bytes", "bus"}`` in NVML's order, which is not that of the bus;
    ``"processes"`` may list pids, ``"memory"`` maps them to bytes, ``"used_bytes"`` is the sum, ``"xids"`` lists
    errors; a device that is ``"lost"`` does not answer.
    """

    path: Path

    def look(self, in_seconds: float) -> dict[str, Seen] | None:  # noqa: ARG002 - the seam's signature
        """What the file says at this moment; None while it is being written."""
        try:
            listed = [device for device in json.loads(self.path.read_text()) if not device.get("lost")]
        except ValueError:
            return None
        return {
            device["uuid"]: Seen(
                dict.fromkeys(device.get("processes", ()), 0) | self.memory(device["uuid"]),
                device.get("used_bytes"),
                tuple(device.get("xids", ())),
            )
            for device in listed
        }

    def close(self) -> None:
        """Nothing to do."""

    def heard(self, uuid: str) -> tuple[int, ...]:
        """What the file lists at this moment."""
        seen = (self.look(0) or {}).get(uuid)
        return seen.xids if seen else ()

    def devices(self) -> tuple[OfferedDevice, ...]:
        """What the file lists; raises SettingInvalid."""
        try:
            return in_bus_order(json.loads(self.path.read_text()))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SettingInvalid("STOKER_WORKER_DEVICES", f"{self.path}: {error}", "list uuid, model, …") from None

    def processes(self, uuid: str) -> frozenset[int]:
        """What the file lists at this moment."""
        listed = json.loads(self.path.read_text())
        return frozenset(pid for device in listed if device["uuid"] == uuid for pid in device.get("processes", ()))

    def memory(self, uuid: str) -> dict[int, int]:
        """What the file lists at this moment."""
        listed = [device.get("memory", {}) for device in json.loads(self.path.read_text()) if device["uuid"] == uuid]
        return {int(pid): size for held in listed for pid, size in held.items()}

    def driver(self) -> str | None:
        """A name that no driver has."""
        return "fake"

    def torch_device(self, uuids: Sequence[str]) -> str:  # noqa: ARG002 - the seam's signature
        """The CPU, whatever was given."""
        return "cpu"

    def files(self, uuids: Sequence[str]) -> tuple[str, ...]:  # noqa: ARG002 - the seam's signature
        """None."""
        return ()


def in_bus_order(found: Sequence[dict[str, Any]]) -> tuple[OfferedDevice, ...]:
    """Devices as NVML lists them, put into the order of their PCI bus.

    Raises ValueError for a UUID that is none.
    """
    ordered = sorted(found, key=lambda device: (str(device["bus"]).lower(), str(device["uuid"])))
    for device in ordered:
        if not _UUID.fullmatch(device["uuid"]):
            raise ValueError(f"{quoted(device['uuid'])} is not the UUID of a GPU")
    return tuple(
        OfferedDevice(device["uuid"], position, str(device["model"])[:100], int(device["memory_bytes"]))
        for position, device in enumerate(ordered)
    )
