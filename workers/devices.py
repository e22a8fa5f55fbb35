"""GPUs behind one seam: what is there, and how a trainer is told which are its own. Always by UUID, never by number:
NVML and CUDA count in different orders, and a number means another device once one is masked or lost."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from stoker.errors import SettingInvalid
from stoker.jobs.fleet import OfferedDevice
from stoker.log import Events

events = Events(__name__)
PROBE_SECONDS = 30.0
_DRIVER_FILES = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")
_UUID = re.compile(r"(GPU|MIG)-[0-9A-Za-z/-]{1,100}")


class Inventory(Protocol):
    """Where a worker learns of its devices."""

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
    raise SettingInvalid("STOKER_WORKER_DEVICES", f"{setting!r} is not known", "use auto, none, or fake:FILE.json")


@dataclass(frozen=True, slots=True)
class Nothing:
    """No devices: everything runs on the CPU."""

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
    """What NVML lists, asked in a process of its own: a driver that hangs or crashes must not take the worker along."""

    _files: dict[str, list[str]] = field(default_factory=dict)  # of each device that was listed

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


def _ask_nvml(*arguments: str) -> list[Any]:
    try:
        asked = subprocess.run(
            [sys.executable, "-m", "stoker.workers.nvml", *arguments],
            capture_output=True,
            timeout=PROBE_SECONDS,
            check=True,
        )
        return list(json.loads(asked.stdout))
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        events.warning("nvml_not_asked", error=str(error)[:500])
        return []


@dataclass(frozen=True, slots=True)
class Fake:
    """Devices from a file, for tests where there is no GPU; trainers that are given them compute on the CPU.

    The file is a list of ``{"uuid", "model", "memory_bytes", "bus"}`` in NVML's order, which is not that of the bus;
    ``"processes"`` may list pids, ``"memory"`` maps them to bytes.
    """

    path: Path

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
            raise ValueError(f"{device['uuid']!r} is not the UUID of a GPU")
    return tuple(
        OfferedDevice(device["uuid"], position, str(device["model"])[:100], int(device["memory_bytes"]))
        for position, device in enumerate(ordered)
    )
