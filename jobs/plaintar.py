"""A tar of plain files that is the same bytes wherever it is made: no owner, no time, two modes."""

import tarfile
from collections.abc import Iterable

BLOCK = 512
END = bytes(2 * BLOCK)


def header(name: str, size: int, mode: int = 0o644) -> bytes:
    """The header of a file."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, mode, 0
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def padding(size: int) -> bytes:
    """What follows the content of a file."""
    return bytes(-size % BLOCK)


def size_of(files: Iterable[tuple[str, int]]) -> int:
    """How long a tar of these names and sizes is."""
    return sum(len(header(name, size)) + size + len(padding(size)) for name, size in files) + len(END)
