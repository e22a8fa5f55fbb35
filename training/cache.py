"""A worker's cache of uploads, prepared data sets, code and environments. Imports no torch: the worker asks it too.

Beside each file or folder lies its lock, whose time is that of the last use; that of a folder holds the folder's bytes
too. What was used longest ago goes first.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from stoker.training.removal import remove_tree

FORMAT = 1  # of a prepared file; part of its name
HAND_OVER_SECONDS = 600  # a file stays so long after a use: until the trainer that it was found for holds it
POLL_SECONDS = 0.02
HIDDEN_BYTES = 2**62
LEFT_SECONDS = 86_400  # what was begun so long ago and is not there yet, was left by a process that died
_FOLDERS = ("datasets", "uploads", "code", "trees", "environments")


def prepared(cache: Path, key: str) -> Path:
    """The place of a prepared data set."""
    return cache / "datasets" / f"{key}-v{FORMAT}.safetensors"


@contextlib.contextmanager
def locked(path: Path, watch: Callable[[], object], *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of a file, which thereby counts as used; ``watch`` is called while another process has it."""
    with _lock_file(path) as descriptor:
        while not _try(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
            watch()
            time.sleep(POLL_SECONDS)
        os.utime(descriptor)
        yield


@contextlib.contextmanager
def held(
    path: Path, watch: Callable[[], object], make: Callable[[], object], is_there: Callable[[Path], bool] = Path.exists
) -> Iterator[None]:
    """Hold what lies at a path against removal, made first if it is not there.

    One process makes it; the others wait until it is there, and no longer: whoever made it goes on holding it, shared,
    for as long as it is used. ``watch`` is called while another process makes it. Raises what ``make`` raises.
    """
    with _lock_file(path) as descriptor:
        while not (_try(descriptor, fcntl.LOCK_SH) and is_there(path)):
            if _try(descriptor, fcntl.LOCK_EX):  # what was shared is given back first, so that one of them gets it
                if not is_there(path):
                    make()
            else:
                watch()
                time.sleep(POLL_SECONDS)
        os.utime(descriptor)
        yield


@contextlib.contextmanager
def _lock_file(path: Path) -> Iterator[int]:
    descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _try(descriptor: int, kind: int) -> bool:
    """Take a lock unless another process has it; what was held before is given back either way."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def has(path: Path, watch: Callable[[], object]) -> bool:
    """Whether a file is there; if so, it stays for the time of a hand-over."""
    if not path.exists():
        return False
    with locked(path, watch, shared=True):
        return path.exists()


def weigh(folder: Path, size: int) -> None:
    """Note the bytes of a folder, for whoever holds its lock."""
    folder.with_suffix(".lock").write_text(str(size))


def measured(folder: Path) -> int:
    """The bytes of all below a folder, whoever changes it meanwhile; links are not followed.

    With a folder that cannot be looked into, more than any limit: nobody makes one but to hide what it holds.
    """
    total, waiting = 0, [str(folder)]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except FileNotFoundError:
            continue
        except OSError:
            return HIDDEN_BYTES
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            else:
                with contextlib.suppress(OSError):
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total


def remove_folder(folder: Path) -> None:
    """Remove a folder, for whoever holds its lock: gone at once under its name, whoever dies while it is taken down."""
    aside = folder.with_name(f".{folder.name}")
    remove_tree(aside)
    with contextlib.suppress(FileNotFoundError):
        folder.rename(aside)
    remove_tree(aside)


def trim(cache: Path, limit_bytes: int, now: float) -> None:
    """Remove what was used longest ago, down to a limit (0: none); what is in use stays, whatever the limit."""
    _clear_up(cache, now)
    found = sorted(_found(cache))
    excess = sum(size for _, size, _ in found) - limit_bytes if limit_bytes else 0
    for used, size, path in found:
        if excess > 0 and used < now - HAND_OVER_SECONDS and _removed(path, used):
            excess -= size


def _clear_up(cache: Path, now: float) -> None:
    """Remove what was being made or taken down when a process died: the hidden names that belong to nothing."""
    for path in (path for name in _FOLDERS for path in (cache / name).glob(".*")):
        belongs_to = path.with_name(path.name[1:].partition(".")[0])
        with contextlib.suppress(FileNotFoundError):
            if belongs_to.exists() or path.lstat().st_mtime > now - LEFT_SECONDS:
                continue
            if path.is_dir():
                remove_tree(path)
            else:
                path.unlink()


def _found(cache: Path) -> Iterator[tuple[float, int, Path]]:
    """Last use (seconds since 1970), bytes and place of each file; another trainer may remove one meanwhile."""
    for path in (path for name in _FOLDERS for path in (cache / name).glob("[!.]*") if path.suffix != ".lock"):
        with contextlib.suppress(FileNotFoundError):
            lock = path.with_suffix(".lock")
            size = int(lock.read_text() or 0) if path.is_dir() else path.stat().st_size
            yield lock.stat().st_mtime, size, path


def _removed(path: Path, used: float) -> bool:
    """Remove a file, unless it is being used, or was since ``used``."""
    with path.with_suffix(".lock").open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if os.fstat(lock.fileno()).st_mtime != used:
            return False
        if path.is_dir():
            remove_folder(path)
        else:
            path.unlink(missing_ok=True)
        return True
