"""The machine under a worker: what it can offer, which kind it is, and who this process is."""

import math
import os
import socket
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

import psutil

import stoker
from stoker.errors import SettingInvalid
from stoker.jobs.fleet import Identity, OfferedDevice
from stoker.workers import processes

INSTRUCTION_SETS = ("amx_tile", "avx512f", "avx2", "avx", "asimd")  # the widest one decides which kernels torch runs
ROOM_BYTES = 1024 * 1024  # written at start: less free than that is no room to work in
_CGROUP = Path("/sys/fs/cgroup")


def cpus() -> float:
    """How many processors this process may use: its affinity, and the quota of its control group."""
    allowed = float(len(os.sched_getaffinity(0)))
    try:  # version 2; a container without it is taken by its affinity alone
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        return min(allowed, int(quota) / int(period))
    except (OSError, ValueError):
        return allowed


def offered_cpus_milli(setting: float) -> int:
    """Thousandths of a processor to offer; ``setting`` 0 means all.

    Raises SettingInvalid for more than there are.
    """
    there = cpus()
    if setting > there:
        raise SettingInvalid("STOKER_WORKER_CPUS", f"{setting:g} are more than the {there:g} there are", "use fewer")
    return math.floor(1000 * (setting or there))


def memory_bytes() -> int:
    """Bytes of memory that this process and its children may use together."""
    limits = [int(psutil.virtual_memory().total)]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limits.append(int((_CGROUP / name).read_text()))
        except (OSError, ValueError):
            continue  # the other version of control groups, or no limit
    return min(limits)


def offered_memory_bytes(setting: int) -> int:
    """Bytes of memory to offer; ``setting`` 0 means 90 % of all.

    Raises SettingInvalid for more than there is.
    """
    there = memory_bytes()
    if setting > there:
        raise SettingInvalid("STOKER_WORKER_MEMORY_BYTES", f"{setting:,} are more than the {there:,} there are", "")
    return setting or there * 9 // 10


def out_of_memory_kills() -> int:
    """How many processes of this control group the kernel has killed for want of memory; 0 if it does not say."""
    for name in ("memory.events", "memory/memory.oom_control"):
        try:
            lines = (_CGROUP / name).read_text().splitlines()
        except OSError:
            continue
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return 0


def cpu_model() -> str:
    """The processor's name and its widest vectors: where both are equal, torch computes the same bits."""
    fields: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    widest = next((name for name in INSTRUCTION_SETS if name in flags), "scalar")
    return f"{fields.get('model name', os.uname().machine)} ({widest})"


def machine(device: str, devices: Sequence[OfferedDevice], cpu: str) -> str:
    """The kind of machine on which an attempt runs, in the words that the planner compares."""
    models = sorted({offered.model for offered in devices}) if device == "gpu" else []
    return " + ".join([*models, cpu])


def identity() -> Identity:
    """A new incarnation, for this process."""
    pid = os.getpid()
    started = processes.started(pid)
    return Identity(
        id=uuid.uuid4(),
        host=socket.gethostname(),
        boot_id=processes.namespace(),
        pid=pid,
        process_started=started or 0.0,
        version=stoker.__version__,
    )


def is_dead(other: Identity) -> bool:
    """Whether another incarnation is known to have ended: only where its pid means what it means here.

    Host names prove nothing, two machines or containers may share one; of any other holder the lease tells.
    """
    return other.boot_id == processes.namespace() and processes.started(other.pid) != other.process_started


def refuse_home(home: Path) -> None:
    """Raise SettingInvalid for a home in which nothing can be written: its disk is full, or somebody else's."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home) as file:
            file.write(bytes(ROOM_BYTES))
            file.flush()
    except OSError as error:
        problem = f"{home} cannot be written: {error.strerror}"
        raise SettingInvalid("STOKER_HOME", problem, "free space there, or name a folder of one's own") from None
