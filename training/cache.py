"""A worker's cache of uploads and prepared data sets. Imports no torch: the worker asks it too.

Beside each file lies its lock, whose time is that of the last use. What was used longest ago goes first.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

FORMAT = 1  # of a prepared file; part of its name
HAND_OVER_SECONDS = 600  # a file stays so long after a use: until the trainer that it was found for holds it
_FOLDERS = ("datasets", "uploads")


def prepared(cache: Path, key: str) -> Path:
    """The place of a prepared data set."""
    return cache / "datasets" / f"{key}-v{FORMAT}.safetensors"


@contextlib.contextmanager
def locked(path: Path, watch: Callable[[], object], *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of a file, which thereby counts as used; ``watch`` is called while another process has it."""
    descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                watch()
                time.sleep(0.02)
        os.utime(descriptor)
        yield
    finally:
        os.close(descriptor)


def has(path: Path, watch: Callable[[], object]) -> bool:
    """Whether a file is there; if so, it stays for the time of a hand-over."""
    if not path.exists():
        return False
    with locked(path, watch, shared=True):
        return path.exists()


def trim(cache: Path, limit_bytes: int, now: float) -> None:
    """Remove what was used longest ago, down to a limit (0: none); what is in use stays, whatever the limit."""
    found = sorted(_found(cache))
    excess = sum(size for _, size, _ in found) - limit_bytes if limit_bytes else 0
    for used, size, path in found:
        if excess > 0 and used < now - HAND_OVER_SECONDS and _removed(path, used):
            excess -= size


def _found(cache: Path) -> Iterator[tuple[float, int, Path]]:
    """Last use (seconds since 1970), bytes and place of each file; another trainer may remove one meanwhile."""
    for path in (path for name in _FOLDERS for path in (cache / name).glob("[!.]*") if path.suffix != ".lock"):
        with contextlib.suppress(FileNotFoundError):
            yield path.with_suffix(".lock").stat().st_mtime, path.stat().st_size, path


def _removed(path: Path, used: float) -> bool:
    """Remove a file, unless it is being used, or was since ``used``."""
    with path.with_suffix(".lock").open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if os.fstat(lock.fileno()).st_mtime != used:
            return False
        path.unlink(missing_ok=True)
        return True
