"""What a snapshot of code is: plain files, each with a path, a mode and a content. Pure; clients use it too.

Its digest is the SHA-256 over one line for each file, in the order of the paths' UTF-8 bytes:
``0644 <SHA-256 of the content in hexadecimal> <path>`` and a line feed; 0755 where the file may be executed.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stoker.errors import InvalidInput
from stoker.jobs.spec_fields import inner_path
from stoker.quoting import quoted

MAX_FILES = 50_000
EXECUTABLE, PLAIN = 0o755, 0o644
GIT_FIELD = "STOKER.git"  # of the global header of an uploaded tar: a JSON document about the commit
GIT_LIMIT_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class CodeFile:
    """One file."""

    path: str
    mode: int  # EXECUTABLE or PLAIN
    size: int
    sha256: str  # hexadecimal

    @property
    def line(self) -> bytes:
        """What it adds to the digest."""
        return f"{self.mode:04o} {self.sha256} {self.path}\n".encode()


def mode_of(mode: int) -> int:
    """Of all that a file's mode says, whether it may be executed is kept."""
    return EXECUTABLE if mode & 0o111 else PLAIN


def in_order(files: Iterable[CodeFile]) -> list[CodeFile]:
    """Files in the order of the digest and of the stored tar."""
    return sorted(files, key=lambda file: file.path.encode())


def digest(files: Iterable[CodeFile]) -> str:
    """The digest of a snapshot, as ``sha256:…``."""
    whole = hashlib.sha256()
    for file in in_order(files):
        whole.update(file.line)
    return f"sha256:{whole.hexdigest()}"


def check_paths(paths: Sequence[str]) -> None:
    """Refuse paths that lead out, cannot be read, occur twice, or are both a file and a folder.

    Raises InvalidInput with the field `code`.
    """
    if not paths:
        raise InvalidInput("code", "holds no files", "send at least the program that is to run")
    if len(paths) > MAX_FILES:
        raise InvalidInput("code", f"holds more than {MAX_FILES:,} files", "list data and results in .stokerignore")
    known: set[str] = set()
    for path in paths:
        try:
            inner_path(path)
        except InvalidInput as error:
            raise InvalidInput("code", error.problem, error.fix) from None
        if path in known:
            raise InvalidInput("code", f"the name {quoted(path)} occurs twice", "send each file once")
        known.add(path)
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder:
            if folder in known:
                raise InvalidInput("code", f"{quoted(folder)} is a file and a folder", "send it as one of them")
            folder = folder.rpartition("/")[0]
