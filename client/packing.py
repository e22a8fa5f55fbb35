"""A folder of code on its way to the server: which files belong to it, and its digest before anything is sent."""

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathspec import GitIgnoreSpec

from stoker.client import repository
from stoker.client.uploads import Progress, file_pieces
from stoker.errors import InvalidInput
from stoker.jobs.code_files import CodeFile, check_paths, digest, in_order, mode_of
from stoker.jobs.plaintar import END, header, padding, size_of
from stoker.quoting import shown

IGNORED = ".stokerignore"
LEFT_OUT = frozenset({".git", "__pycache__"})  # folders, where git does not say what belongs to the code
LARGEST = 5  # named when there is too much


@dataclass(frozen=True, slots=True)
class Packed:
    """The files of a folder, read once for their digests."""

    folder: Path
    files: tuple[CodeFile, ...]  # in the order of the digest
    git: dict[str, Any] | None  # commit, branch, dirty, diff

    @property
    def code(self) -> str:
        """The digest under which the server keeps it."""
        return digest(self.files)

    @property
    def start(self) -> bytes:
        """What a tar of it begins with: what git says."""
        return repository.tar_header(self.git) if self.git else b""

    @property
    def size(self) -> int:
        """Of the tar."""
        return len(self.start) + size_of((file.path, file.size) for file in self.files)

    def has(self, path: str) -> bool:
        """Whether a path, as written in a command that runs in the folder, is one of the files."""
        wanted = os.path.normpath(path)
        return any(file.path == wanted for file in self.files)

    def pieces(self, progress: Progress | None = None) -> Iterator[bytes]:
        """Yield the tar.

        Raises InvalidInput when a file has changed since it was packed.
        """
        done, kept, total = 0, bytearray(self.start), self.size
        for file in self.files:
            kept += header(file.path, file.size, file.mode)
            for piece in file_pieces(self.folder / file.path, file.size):
                kept += piece
                if len(kept) >= 2**20:  # small files travel together
                    done += len(kept)
                    yield bytes(kept)
                    kept.clear()
                    if progress:
                        progress(done, total)
            kept += padding(file.size)
        yield bytes(kept + END)
        if progress:
            progress(total, total)


def pack(folder: Path, limit_bytes: int) -> Packed:
    """Look at a folder: what git tracks and what is new there, without git everything, less `.stokerignore`.

    Raises InvalidInput: it cannot be read, is too large (the largest files are named), holds links that lead out, or
    names that cannot be used.
    """
    if not folder.is_dir():
        raise InvalidInput("code", f"{shown(str(folder))} is no folder", "name the folder of the program")
    listed = repository.files(folder)
    paths = sorted(set(listed or _walk(folder, folder)))  # git lists nothing of a folder that it ignores
    found = [(path, status) for path in _kept(folder, paths) if (status := _status(folder, path)) is not None]
    check_paths([path for path, _ in found])
    _check_size(folder, [(path, status.st_size) for path, status in found], limit_bytes)
    files = [
        CodeFile(path, mode_of(status.st_mode), status.st_size, _sha256(folder / path, status))
        for path, status in found
    ]
    return Packed(folder, tuple(in_order(files)), repository.describe(folder))


def _walk(root: Path, folder: Path) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in LEFT_OUT:
                        yield from _walk(root, Path(entry.path))
                else:
                    yield Path(entry.path).relative_to(root).as_posix()
    except OSError as error:
        where = shown(str(folder))
        raise InvalidInput("code", f"cannot read {where}: {error.strerror}", f"list it in {IGNORED}") from None


def _kept(folder: Path, paths: list[str]) -> list[str]:
    try:
        lines = (folder / IGNORED).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return paths
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput("code", f"cannot read {IGNORED}: {error}", "write it like a .gitignore") from None
    try:
        ignored = GitIgnoreSpec.from_lines(lines)
    except ValueError as error:
        raise InvalidInput("code", f"{IGNORED}: {error}", "write it like a .gitignore") from None
    return [path for path in paths if not ignored.match_file(path)]


def _status(folder: Path, path: str) -> os.stat_result | None:
    """Of a file, or of the file in the folder that a link stands for; None for what git tracks and is deleted."""
    place = folder / path
    try:
        status = place.lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidInput("code", f"cannot read {shown(path)}: {error.strerror}", f"list it in {IGNORED}") from None
    if stat.S_ISLNK(status.st_mode):
        return _followed(folder, path)
    if not stat.S_ISREG(status.st_mode):
        raise InvalidInput("code", f"{shown(path)} is no plain file", f"list it in {IGNORED}")
    return status


def _followed(folder: Path, path: str) -> os.stat_result:
    fix = f"replace it by what it stands for, or list it in {IGNORED}"
    target = Path(os.path.realpath(folder / path))
    if not target.is_relative_to(os.path.realpath(folder)):
        raise InvalidInput("code", f"{shown(path)} is a link that leads out of the folder", fix)
    if not target.is_file():
        raise InvalidInput("code", f"{shown(path)} is a link to no file", fix)
    return target.stat()


def _check_size(folder: Path, sizes: list[tuple[str, int]], limit_bytes: int) -> None:
    total = sum(size for _, size in sizes)
    if total <= limit_bytes:
        return
    weights: Counter[str] = Counter()
    for path, size in sizes:
        weights[path] += size
        parents = path.split("/")[:-1]
        if parents:
            weights["/".join(parents[:2]) + "/"] += size
    largest = ", ".join(f"{shown(path)} ({size / 1e6:,.1f} MB)" for path, size in weights.most_common(LARGEST))
    raise InvalidInput(
        "code",
        f"{shown(str(folder))} holds {total / 1e6:,.1f} MB, more than {limit_bytes / 1e6:,.0f} MB; largest: {largest}",
        f"list data and results in {IGNORED}, upload data with `stoker dataset add`, or raise STOKER_CODE_LIMIT_BYTES",
    )


def _sha256(path: Path, status: os.stat_result) -> str:
    found = hashlib.sha256()
    for piece in file_pieces(path, status.st_size):
        found.update(piece)
    return found.hexdigest()
