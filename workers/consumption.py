"""What a job consumes: memory and processes of its whole tree, looked at often, counted exactly when it matters.

Memory is what the job's processes hold for themselves. Pages of files do not count, the kernel takes those back; nor
does what a forked trainer still shares with the fork server; pages that processes of the job share are divided among
them (PSS). The kernel needs milliseconds to count these, so once a job has settled it is counted when it seems to be
above its limit, and between two counts the change of a simple sum is added.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path

from stoker.workers import processes

LOOK_SECONDS = 0.25
SHARE = 0.01  # of this thread's time that looking may take
YOUNG_SHARE = 0.1  # the same until it has settled
SETTLED_SECONDS = 2.0  # counted at each look until then: it may end soon, and becomes another program
_PROC = Path("/proc")


@dataclass(slots=True)
class Consumption:
    """Of one tree of processes, from its start to its end."""

    peak_bytes: int = 0
    tasks: int = 0  # processes and threads, at the last look
    _counted_bytes: int = 0  # exactly, the last time
    _then_bytes: int = 0  # the simple sum at that time
    _counted_at: float = 0.0
    _count_again_at: float = 0.0
    _began: float = field(default_factory=time.monotonic)
    due: float = 0.0  # of the next look, monotonic

    def look(self, pid: int, limit_bytes: int) -> bool:
        """Look at a process and its descendants; whether they hold more memory than the limit, counted exactly."""
        began = time.monotonic()
        members = [pid, *processes.descendants(pid)]
        held = [_status(member) for member in members]
        self.tasks, simple = sum(tasks for tasks, _ in held), sum(size for _, size in held)
        estimate = self._counted_bytes + simple - self._then_bytes if self._counted_at else simple
        new = began < self._began + LOOK_SECONDS / 2  # nothing of its own is there yet, and it is not to be held up
        young = self._counted_at <= self._began + SETTLED_SECONDS
        if (young and not new) or (estimate > limit_bytes and began >= self._count_again_at):
            estimate = self._count(members, simple, began)
        if self._counted_at:
            self.peak_bytes = max(self.peak_bytes, estimate)
        took = time.monotonic() - began
        self.due = began + max(LOOK_SECONDS, took / (YOUNG_SHARE if young else SHARE))
        return self._counted_at == began and estimate > limit_bytes

    def _count(self, members: list[int], simple: int, now: float) -> int:
        parent = processes.parent(members[0])
        server = _fields(_PROC / str(parent) / "smaps_rollup").get("Pss_Anon", 0) if parent else 0
        self._counted_bytes = sum(_held(member, server) for member in members)
        self._then_bytes, self._counted_at = simple, now
        self._count_again_at = now + (time.monotonic() - now) / SHARE
        return self._counted_bytes


def _fields(path: Path) -> dict[str, int]:
    """The numbers of a file of ``name: number kB`` lines; none if the process has gone."""
    try:
        lines = path.read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return {}
    parts = (line.split() for line in lines)
    return {part[0].rstrip(":"): int(part[1]) for part in parts if len(part) > 1 and part[1].isdigit()}


def _status(pid: int) -> tuple[int, int]:
    """Threads of a process, and its memory in bytes with all that it shares."""
    found = _fields(_PROC / str(pid) / "status")
    return found.get("Threads", 0), 1024 * sum(found.get(name, 0) for name in ("RssAnon", "RssShmem", "VmSwap"))


def _held(pid: int, server_kilobytes: int) -> int:
    """Its memory in bytes, with its part of what it shares, but not of what it shares with the fork server.

    Of a page that both have, both have the same part; so at most the server's parts are taken off, and never what
    is the process's alone.
    """
    found = _fields(_PROC / str(pid) / "smaps_rollup")
    own = max(found.get("Private_Dirty", 0), found.get("Pss_Anon", 0) - server_kilobytes)
    return 1024 * (own + found.get("Pss_Shmem", 0) + found.get("SwapPss", 0))
