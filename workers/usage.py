"""What a trainer and all below it use, measured from outside while it runs."""

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from stoker.log import carried
from stoker.workers import processes
from stoker.workers.devices import Inventory

CPU_PAUSE_SECONDS = 1.0
GPU_PAUSE_SECONDS = 10.0  # NVML is asked in a process of its own, which takes a tenth of a second of a processor
WORKING_SHARE = 0.05  # of one processor: who uses less waits for something, or is stuck
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Processor seconds of a process and its descendants so far, and of those among them that have ended."""
    return sum(map(_ticks, (pid, *processes.descendants(pid)))) / _TICKS


def _ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(map(int, fields[11:15]))  # its own in user and kernel mode, and those of children it has waited for


class Meter:
    """Measures one trainer, whenever it is asked to, in the thread that watches it."""

    def __init__(self, inventory: Inventory, uuids: Sequence[str]) -> None:
        """The trainer has these devices."""
        self.cpu_seconds = 0.0
        self.gpu_bytes: int | None = None  # highest sum over its devices and processes
        self._inventory, self._uuids = inventory, uuids
        self._cpu_due, self._gpu_due = 0.0, -GPU_PAUSE_SECONDS
        self._asking: Future[int | None] | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="gpu-memory")  # its thread starts with the first task

    @property
    def answered(self) -> bool:
        """Whether no question to the driver is under way."""
        return self._asking is None or self._asking.done()

    def look(self, pid: int, now: float) -> bool:
        """Measure what is due at ``now`` (seconds in which it was not frozen); whether it was seen to compute."""
        if self._uuids:
            self._look_at_devices(pid, now)
        if now < self._cpu_due:
            return False
        used = cpu_seconds(pid)
        pause = now - self._cpu_due + CPU_PAUSE_SECONDS
        working = used - self.cpu_seconds >= WORKING_SHARE * pause
        self.cpu_seconds, self._cpu_due = max(self.cpu_seconds, used), now + CPU_PAUSE_SECONDS
        return working

    def _look_at_devices(self, pid: int, now: float) -> None:
        if self._asking and self._asking.done():
            seen = self._asking.result()
            self.gpu_bytes = max(self.gpu_bytes or 0, seen) if seen is not None else self.gpu_bytes
            self._asking = None
        if self._asking is None and now >= self._gpu_due:
            self._gpu_due = now + GPU_PAUSE_SECONDS
            self._asking = self._pool.submit(carried(self._gpu_bytes), {pid, *processes.descendants(pid)})

    def _gpu_bytes(self, tree: set[int]) -> int | None:
        """Bytes that these processes hold; None: the driver does not say, or sees other pids, as in a container."""
        held = [self._inventory.memory(uuid) for uuid in self._uuids]
        mine = [size for device in held for pid, size in device.items() if pid in tree]
        return sum(mine) if mine else None

    def close(self) -> None:
        """Ask no more; an answer under way is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)
