"""What the code of a job may touch: files, sockets, processes, memory. Put on once, by the job's own process, for good.

No privilege is needed: Landlock for files, signals and TCP (``landlock``), a filter of system calls (``seccomp``),
limits, and no new privileges (``privileges``). What a process has asked of the kernel here outlives its exec, and all
its children inherit it.
"""

import contextlib
import dataclasses
import functools
import os
import resource
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from stoker.errors import ConfinementUnavailable
from stoker.workers import landlock, privileges, processes, seccomp
from stoker.workers.seccomp import Architecture

TASKS, TASKS_PER_CPU = 128, 32  # processes and threads: few enough that the worker can still count and kill them all
BEYOND = 32  # so many more the kernel lets it start, for the watch to see that it wants more
OPEN_FILES = 65_536
FILE_BYTES = 64 * 2**30  # of one file
ADDRESSES_BYTES = 64 * 2**30  # beside four times a job's memory: only what no job of its size can mean is refused
SCOPED = 6  # Landlock's version from which signals stay inside the job
_TRUNCATING = 3  # from which it sees truncation
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_OWN = ("/proc/self", "/proc/thread-self")  # of this process alone, not of its children


@dataclass(frozen=True, slots=True)
class Confinement:
    """What one job may touch; everything else is refused."""

    read_only: tuple[str, ...]  # files and folders with all below them: read and execute; absent ones are passed over
    read_write: tuple[str, ...]  # also write, make, remove; no device files, no sockets
    network: bool  # TCP and UDP to anywhere; without it no socket at all but a socketpair
    memory_bytes: int | None  # what the job asked for; None: no limit
    processes: int = TASKS + TASKS_PER_CPU  # and threads
    file_bytes: int = FILE_BYTES
    open_files: int = OPEN_FILES
    devices: tuple[str, ...] = ()  # device files of its GPUs: read, write, ioctl
    listable: tuple[str, ...] = ()  # folders whose names, and those below, may be listed, and nothing read

    def to_document(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read what ``to_document`` made."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in document.items()}
        return cls(**values)


def tasks(cpus: float) -> int:
    """How many processes and threads a job with so many processors may have."""
    return TASKS + round(TASKS_PER_CPU * cpus)


@functools.cache
def available() -> int | str:
    """Landlock's version in this kernel, or why jobs cannot be confined here."""
    if seccomp.architecture() is None:
        return f"system calls are filtered on {' and '.join(seccomp.ARCHITECTURES)} only, this is {os.uname().machine}"
    return (
        landlock.abi() or "this kernel has no Landlock: Linux 5.13 or newer has it, unless it was switched off at boot"
    )


def weaknesses(version: int) -> dict[str, str]:
    """What a kernel with this version of Landlock, or this process, does not keep inside a job, and how to mend it."""
    found = {}
    if version < SCOPED:
        found["jobs of one worker can send signals to each other"] = "Linux 6.12 keeps signals inside a job"
    if lacking := privileges.missing():
        problem = f"jobs run as root itself, whose processes the kernel does not count: {', '.join(lacking)} is missing"
        found[problem] = "run the worker as an ordinary user, or as root with these"
    return found


def confine(confinement: Confinement) -> None:
    """Confine this process, which has one thread, and all its children to come.

    Raises ConfinementUnavailable; what was put on by then stays on.
    """
    version, arch = available(), seccomp.architecture()
    if isinstance(version, str) or arch is None:
        raise ConfinementUnavailable(str(version))
    if len(os.listdir("/proc/self/task")) != 1:  # noqa: PTH208 - the quickest way to count
        raise ConfinementUnavailable("this process has threads, which would stay outside")
    try:
        filter_, died_with = _filter(version, arch, network=confinement.network), processes.dies_with()
        _limit(confinement)
        privileges.give_up(confinement.read_write)
        if died_with:
            processes.die_with(died_with)  # forgotten by the kernel at a change of user
        landlock.restrict(version, _rules(confinement), tcp=confinement.network)
        seccomp.install(filter_, arch)
    except (OSError, ValueError) as error:
        raise ConfinementUnavailable(str(error)) from None


def rehearse() -> None:
    """Do ahead of an order what does not depend on it, and use what an order will: its first use is slow in a fork."""
    if isinstance(version := available(), int) and (arch := seccomp.architecture()):
        for network in (False, True):
            _filter(version, arch, network=network)
        processes.dies_with()
        with contextlib.suppress(OSError):  # it is tried again in earnest
            os.close(landlock.make(version, _rules(Confinement((), (), network=False, memory_bytes=None)), tcp=False))


def _filter(version: int, arch: Architecture, *, network: bool) -> bytes:
    spared = () if version >= SCOPED else tuple(_ancestors())
    return seccomp.program(arch, network=network, spared=spared, truncate=version >= _TRUNCATING)


def _rules(confinement: Confinement) -> Iterator[tuple[str, int]]:
    for path in (*_OWN, *confinement.read_only):
        yield path, landlock.READ
    for path in confinement.read_write:
        yield path, landlock.WRITE
    for path in (*_DEVICES, *confinement.devices):
        yield path, landlock.DEVICE
    for path in confinement.listable:
        yield path, landlock.READ_DIR


def _limit(confinement: Confinement) -> None:
    """Set limits of the kernel, never above those that hold already."""
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: confinement.file_bytes,
        resource.RLIMIT_NOFILE: confinement.open_files,
        resource.RLIMIT_NPROC: _tasks(confinement),
    }
    if confinement.memory_bytes and not confinement.devices:  # CUDA maps many times what it uses
        limits[resource.RLIMIT_AS] = 4 * confinement.memory_bytes + ADDRESSES_BYTES
    for kind, wanted in limits.items():
        hard = resource.getrlimit(kind)[1]
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (most, most))


def _tasks(confinement: Confinement) -> int:
    """How many processes and threads the job's user may have.

    Root's jobs are users of their own. An ordinary user's jobs share theirs with all that it runs: a job is given what
    runs now besides, so that it does not starve; the watch (``consumption``) counts exactly, this stops what grows
    faster than that looks.
    """
    others = 0 if os.geteuid() == 0 else int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
    return others + confinement.processes + BEYOND


def _ancestors() -> Iterator[int]:
    """The processes above this one: the fork server, the worker, and so on to the first."""
    pid = os.getppid()
    while pid > 0:
        yield pid
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) if pid > 1 else 0
