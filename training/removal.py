"""Folders that a job has filled, removed whatever it made of them."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

_LOOK = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC  # needs no right to read it


def remove_tree(folder: Path) -> None:
    """Remove a folder with all below it; what cannot be removed is left, and nothing is raised.

    A job may take away its owner's own right to look into a folder, and nest folders deeper than a path may be long or
    a recursion deep: either would stay on the disk for ever. So each is opened up, and moved to the top before it is
    emptied.
    """
    waiting = _emptied(folder, folder)
    while waiting:
        inner = waiting.pop()
        waiting += _emptied(inner, folder)
        with contextlib.suppress(OSError):
            inner.rmdir()
    with contextlib.suppress(OSError):
        folder.rmdir()


def _emptied(folder: Path, top: Path) -> list[Path]:
    """Remove the files of a folder, and move its folders to the top; returns their places."""
    found: list[Path] = []
    with contextlib.suppress(OSError), _opened_up(folder) as held, os.scandir(f"/proc/self/fd/{held}") as entries:
        for entry in entries:  # one by one: there may be millions
            with contextlib.suppress(OSError):
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.name, dir_fd=held)
                    continue
                place = folder / entry.name
                if folder != top:
                    place = top / uuid4().hex
                    with _opened_up(entry.name, within=held):  # or it could not be moved
                        os.rename(entry.name, place, src_dir_fd=held)
                found.append(place)
    return found


@contextlib.contextmanager
def _opened_up(folder: Path | str, within: int | None = None) -> Iterator[int]:
    """A descriptor of a folder, never of what a link leads to, with which its owner may do anything again."""
    held = os.open(folder, _LOOK, dir_fd=within)
    try:
        Path(f"/proc/self/fd/{held}").chmod(0o700)
        yield held
    finally:
        os.close(held)
