"""A data set on its way to the server: an archive as it is, or a folder as a tar that is always the same bytes."""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stoker.errors import InvalidInput
from stoker.jobs.plaintar import END, header, padding, size_of

READ_BYTES = 1 << 20
Progress = Callable[[int, int], None]  # bytes done, bytes in all
CONTENT_TYPES = {".zip": "application/zip", ".gz": "application/gzip", ".tgz": "application/gzip"}


@dataclass(frozen=True, slots=True)
class Upload:
    """Bytes that can be produced again and again, each time the same."""

    path: Path
    members: tuple[tuple[str, int], ...] | None  # (name in the archive, size); None: the path is an archive itself
    size: int
    content_type: str

    @classmethod
    def of(cls, path: Path) -> "Upload":
        """Look at an archive or a folder.

        Raises InvalidInput: neither, unreadable, empty, or a folder that holds links or special files.
        """
        try:
            if path.is_dir():
                members = tuple(_members(path))
                return cls(path, members, size_of(members), "application/x-tar")
            size = path.stat().st_size
        except OSError as error:
            raise InvalidInput("path", f"cannot read {path}: {error.strerror}", "name an archive or a folder") from None
        if not path.is_file():
            raise InvalidInput("path", f"{path} is neither a file nor a folder", "name a zip, a tar or a folder")
        if size == 0:
            raise InvalidInput("path", f"{path} is empty", "name a zip or tar of train/CLASS/… and test/CLASS/…")
        return cls(path, None, size, CONTENT_TYPES.get(path.suffix.lower(), "application/x-tar"))

    def sha256(self) -> str:
        """The digest of all bytes, as ``sha256:…``; reads everything once."""
        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(piece)
        return f"sha256:{digest.hexdigest()}"

    def pieces(self, progress: Progress | None = None) -> Iterator[bytes]:
        """Yield the bytes in pieces of at most 1 MiB.

        Raises InvalidInput when a file has changed since it was looked at.
        """
        done = 0
        for piece in _tar(self.path, self.members) if self.members is not None else file_pieces(self.path, self.size):
            done += len(piece)
            yield piece
            if progress:
                progress(done, self.size)


def _members(folder: Path) -> Iterator[tuple[str, int]]:
    """List the files of a folder in the order of their names; hidden ones are left out."""
    found = sorted(_walk(folder, folder))
    if not found:
        raise InvalidInput("path", f"{folder} holds no files", "put images into train/CLASS/ and test/CLASS/")
    return iter(found)


def _walk(root: Path, folder: Path) -> Iterator[tuple[str, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(root, Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield _archive_name(root, entry.path), entry.stat(follow_symlinks=False).st_size
            else:
                kind = "a link" if entry.is_symlink() else "no plain file"
                raise InvalidInput("path", f"{_shown(entry.path)} is {kind}", "replace it by the file it stands for")


def _archive_name(root: Path, path: str) -> str:
    name = Path(path).relative_to(root).as_posix()
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InvalidInput("path", f"{_shown(path)} has a name that is not UTF-8", "rename it") from None
    return name


def _shown(path: str) -> str:
    return ascii(path)[1:-1]


def _tar(folder: Path, members: tuple[tuple[str, int], ...]) -> Iterator[bytes]:
    kept = bytearray()
    for name, size in members:
        kept += header(name, size)
        for piece in file_pieces(folder / name, size):
            kept += piece
            if len(kept) >= READ_BYTES:  # small images travel together
                yield bytes(kept)
                kept.clear()
        kept += padding(size)
    yield bytes(kept + END)


def file_pieces(path: Path, size: int) -> Iterator[bytes]:
    """Yield a file of so many bytes in pieces of at most 1 MiB.

    Raises InvalidInput when it cannot be read, or has changed since it was looked at.
    """
    left = size
    try:
        with open(os.open(path, os.O_RDONLY), "rb") as file:  # noqa: PTH123 - a descriptor
            while piece := file.read(READ_BYTES):
                left -= len(piece)
                if left < 0:
                    break
                yield piece
    except OSError as error:
        raise InvalidInput("path", f"cannot read {_shown(str(path))}: {error.strerror}", "make it readable") from None
    if left:
        raise InvalidInput("path", f"{_shown(str(path))} changed while it was read", "upload it again")
