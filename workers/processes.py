"""Processes as Linux knows them: identities that survive pid reuse, descendants, death ties."""

import collections
import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_GET_PDEATHSIG = 2
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True)
_PROC = Path("/proc")
KEPT: set[int] = set()  # children of this process that live as long as it does: never strays


def _prctl(option: int, value: int | bytes) -> None:
    if _LIBC.prctl(option, ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies, so that none escapes by forking twice."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with(parent_pid: int) -> None:
    """Ask the kernel for SIGKILL when the parent *thread* ends; ends at once if the parent has gone already."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(113)


def dies_with() -> int:
    """The parent with which this process was asked to die; 0: it was not."""
    number = ctypes.c_int(0)
    if _LIBC.prctl(_PR_GET_PDEATHSIG, ctypes.byref(number), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_GET_PDEATHSIG)")
    return os.getppid() if number.value else 0


def set_title(title: str) -> None:
    """Name this process in ``top`` and ``ps -o comm``; cut to 15 bytes."""
    _prctl(_PR_SET_NAME, title.encode()[:15])


def close_from(first: int) -> None:
    """Close every descriptor from ``first`` on."""
    if _LIBC.close_range(ctypes.c_uint(first), ctypes.c_uint(0xFFFFFFFF), 0) != 0:  # before Linux 5.9
        os.closerange(first, os.sysconf("SC_OPEN_MAX"))


def boottime() -> float:
    """Seconds since boot, counting those in which the machine was suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Identity of this boot of the machine: pids mean nothing beyond it."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def namespace() -> str:
    """Where pids of this process mean what they mean here: this boot of the machine, this container."""
    return f"{boot_id()}/{(_PROC / 'self/ns/pid').stat().st_ino}"


def started(pid: int) -> float | None:
    """Seconds after boot at which a process started; None: there is no such process, or it is a zombie."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19]) / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    """The processes whose parent is ``pid``, zombies too; none if it has gone."""
    found: list[int] = []
    try:
        for task in (_PROC / str(pid) / "task").iterdir():
            found += map(int, (task / "children").read_text().split())
    except (FileNotFoundError, ProcessLookupError):
        if pid == os.getpid():  # a kernel without CONFIG_PROC_CHILDREN, not a process that ended
            return [other for other in _all() if parent(other) == pid]
    return found


def descendants(pid: int) -> Iterator[int]:
    """The children of a process, their children, and so on: parents before children."""
    found = collections.deque(children(pid))
    while found:  # not by recursion: a job may make a chain of any length
        yield found[0]
        found.extend(children(found.popleft()))


def signal_tree(pid: int, number: int) -> None:
    """Signal a process and all its descendants, in whatever session they are; again until no new one shows up."""
    reached: set[int] = set()
    while new := [member for member in (pid, *descendants(pid)) if member not in reached]:
        for member in new:
            with contextlib.suppress(ProcessLookupError):
                os.kill(member, number)
        reached.update(new)


def kill_strays(known: set[int]) -> list[int]:
    """Kill all descendants of this process that do not descend from the ``known`` or the kept children.

    Returns the strays that it found; those that have ended are reaped here. Call it until it finds none: a stray that
    dies while this looks leaves its children to this process, and they are strays of the next call.
    """
    strays = [child for child in children(os.getpid()) if child not in known | KEPT]
    for stray in strays:
        signal_tree(stray, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(stray, os.WNOHANG)
    return strays


def _all() -> Iterator[int]:
    return (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())


def parent(pid: int) -> int | None:
    """The parent of a process; None: there is no such process."""
    try:
        return int((_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None
