"""What the code of a job may touch: files, sockets, processes, memory. Put on once, by the job's own process, for good.

No privilege is needed: Landlock for files, signals and TCP (``landlock``), a filter of system calls (``seccomp``),
limits, and no new privileges; what a process has asked of the kernel here outlives its exec, and all its children
inherit it.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

PROCESSES = 1024  # tasks, threads among them
OPEN_FILES = 65_536
FILE_BYTES = 64 * 2**30  # of one file


@dataclass(frozen=True, slots=True)
class Confinement:
    """What one job may touch; everything else is refused."""

    read_only: tuple[str, ...]  # files and folders with all below them: read and execute; absent ones are passed over
    read_write: tuple[str, ...]  # also write, make, remove; no device files, no sockets
    network: bool  # TCP and UDP to anywhere; without it no socket at all but a socketpair
    memory_bytes: int | None  # what the job asked for; None: no limit
    processes: int = PROCESSES
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
