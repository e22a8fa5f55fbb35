"""Files that a job hands over: opened and removed below its folder, through no link, whatever it moves meanwhile.

A path is walked a folder at a time, each opened within the one before. A job that puts a link in place of a folder,
at whatever moment, has the walk end there; it never leads out.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe would wait for a writer


def open_file(folder: Path, path: str) -> int:
    """Open a plain file below a folder for reading; returns its descriptor.

    Raises OSError.
    """
    with _parent(folder, path) as (held, name):
        found = os.open(name, _FILE, dir_fd=held)
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        raise OSError(errno.EINVAL, "it is no plain file")
    return found


def remove(folder: Path, path: str) -> None:
    """Remove a file or a link below a folder, if it is still there.

    Raises OSError.
    """
    try:
        with _parent(folder, path) as (held, name):
            os.unlink(name, dir_fd=held)
    except FileNotFoundError:
        return


@contextmanager
def _parent(folder: Path, path: str) -> Iterator[tuple[int, str]]:
    """The descriptor of the folder in which a path ends, and its name there."""
    *folders, name = path.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in (*folders, name)):
        raise OSError(errno.EINVAL, "it is no path inside the folder")
    held = os.open(folder, FOLDER)
    try:
        for part in folders:
            inner = os.open(part, FOLDER, dir_fd=held)
            os.close(held)
            held = inner
        yield held, name
    finally:
        os.close(held)
