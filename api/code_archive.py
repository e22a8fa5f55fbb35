"""A tar of code on its way in: every member is checked, nothing is extracted, and one plain tar comes out."""

import hashlib
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from pydantic import Field

from stoker.errors import InvalidInput, TooLarge
from stoker.jobs.code_files import GIT_FIELD, GIT_LIMIT_BYTES, MAX_FILES, CodeFile, check_paths, digest, mode_of
from stoker.jobs.documents import parse_json, validate
from stoker.jobs.plaintar import BLOCK, END, header, padding
from stoker.jobs.spec_code import Git
from stoker.quoting import quoted, shown

HEADERS_LIMIT_BYTES = 64 * 10**6  # of long names and tables, over the whole archive: they are read into memory
HEADER_LIMIT_BYTES = 2 * GIT_LIMIT_BYTES  # of one of them
HEADERS_IN_A_ROW = 8  # before a file: each one is another level of tarfile's recursion
PIECE_BYTES = 2**20
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"PK")
_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_DAMAGED = (tarfile.TarError, ValueError, EOFError, OverflowError, RecursionError)


class GitSummary(Git):
    """What a client says of git, with the changes since the commit."""

    diff: str = Field(default="", max_length=GIT_LIMIT_BYTES)


@dataclass(frozen=True, slots=True)
class Archive:
    """The files of a tar that was checked, in the order in which they are stored."""

    path: Path
    members: tuple[tuple[CodeFile, int], ...]  # and where its content begins, in bytes from the start of the tar
    git: dict[str, Any] | None

    @property
    def code(self) -> str:
        """The digest, as ``sha256:…``."""
        return digest(file for file, _ in self.members)

    @property
    def summary(self) -> dict[str, Any]:
        """What is kept beside it."""
        files = [file for file, _ in self.members]
        return {"files": len(files), "bytes": sum(file.size for file in files), "git": self.git}

    def pieces(self) -> Iterator[bytes]:
        """The tar that is stored: these files alone, sorted, always the same bytes."""
        with self.path.open("rb") as source:
            for file, offset in self.members:
                yield header(file.path, file.size, file.mode)
                source.seek(offset)
                yield from _content(source, file.size)
                yield padding(file.size)
        yield END


def read(path: Path, limit_bytes: int) -> Archive:
    """Check a tar member by member.

    Raises InvalidInput: it is damaged or hostile, or holds what is no plain file; TooLarge.
    """
    with path.open("rb") as file:
        if file.read(8).startswith(COMPRESSED):
            raise InvalidInput("code", "is compressed", "send a plain tar")
        file.seek(0)
        try:
            return _read(path, file, limit_bytes)
        except InvalidInput:
            raise
        except _DAMAGED as error:
            raise InvalidInput("code", f"is damaged or no tar: {shown(str(error), 200)}", "send it again") from None


def _read(path: Path, file: BinaryIO, limit_bytes: int) -> Archive:
    members: list[tuple[CodeFile, int]] = []
    total = 0
    with path.open("rb") as contents, tarfile.open(fileobj=file, mode="r:", tarinfo=_bounded_headers()) as archive:
        for info in archive:
            if info.isdir():
                continue
            _check_kind(info)
            total += info.size
            if total > limit_bytes:
                raise TooLarge("the code", limit_bytes)
            if len(members) >= MAX_FILES:
                raise InvalidInput("code", f"holds more than {MAX_FILES:,} files", "leave out data and results")
            contents.seek(info.offset_data)
            name = info.name.removeprefix("./")
            members.append((CodeFile(name, mode_of(info.mode), info.size, _sha256(contents, info)), info.offset_data))
        contents.seek(archive.offset)
        if contents.read(BLOCK) != bytes(BLOCK):  # tarfile ends without a word at a header that is damaged
            raise InvalidInput("code", f"is damaged or incomplete after {len(members):,} files", "send it again")
        git = _git(archive.pax_headers)
    check_paths([one.path for one, _ in members])
    members.sort(key=lambda member: member[0].path.encode())
    return Archive(path, tuple(members), git)


def _check_kind(info: tarfile.TarInfo) -> None:
    if info.issym() or info.islnk():
        raise InvalidInput("code", f"{quoted(info.name)} is a link", "send the file it stands for")
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.issparse():
        raise InvalidInput("code", f"{quoted(info.name)} is no plain file", "send plain files alone")
    if info.size < 0:
        raise InvalidInput("code", f"{quoted(info.name)} has a size below 0", "send it again")


def _sha256(contents: BinaryIO, info: tarfile.TarInfo) -> str:
    found, size = hashlib.sha256(), 0
    for piece in _content(contents, info.size):
        found.update(piece)
        size += len(piece)
    if size != info.size:
        raise InvalidInput("code", f"the tar ends inside {quoted(info.name)}", "send it again")
    return found.hexdigest()


def _content(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size and (piece := file.read(min(size, PIECE_BYTES))):
        size -= len(piece)
        yield piece


def _git(headers: Mapping[str, str]) -> dict[str, Any] | None:
    """What the tar's global header says of git: our client's document, or the comment of `git archive`."""
    if (text := headers.get(GIT_FIELD)) is not None:
        return validate(GitSummary, parse_json(text.encode(errors="replace"))).model_dump(mode="json")
    comment = headers.get("comment", "")
    known = len(comment) in (40, 64) and all(character in "0123456789abcdef" for character in comment)
    return GitSummary(commit=comment).model_dump(mode="json") if known else None


def _bounded_headers() -> type[tarfile.TarInfo]:
    """A reader of headers for one archive that counts what would be read into memory."""
    seen = {"bytes": 0, "in a row": 0}

    class Bounded(tarfile.TarInfo):
        """A header of a tar."""

        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
            """Read one block of 512 bytes."""
            found = super().frombuf(buf, encoding, errors)
            if found.type not in _EXTENDED:
                seen["in a row"] = 0
                return found
            seen["bytes"] += found.size
            seen["in a row"] += 1
            if found.size > HEADER_LIMIT_BYTES or seen["bytes"] > HEADERS_LIMIT_BYTES:
                raise InvalidInput("code", f"has headers of more than {HEADER_LIMIT_BYTES:,} bytes", "send a plain tar")
            if seen["in a row"] > HEADERS_IN_A_ROW:
                raise InvalidInput("code", f"has more than {HEADERS_IN_A_ROW} headers in a row", "send a plain tar")
            return found

    return Bounded
