"""The files of a zip, a tar or a folder, one after the other, in memory: nothing is ever extracted to a path.

Every name is checked, links and devices are refused, and what comes out is bounded, so that neither a name nor a bomb
reaches further than the error that names it.
"""

import bz2
import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self, cast

from stoker.quoting import quoted
from stoker.training.failure import TrainingFailed

MAX_MEMBERS = 2_000_000
MAX_MEMBER_BYTES = 64 * 10**6
MAX_RATIO = 100  # bytes that come out per byte of the archive …
ALWAYS_ALLOWED_BYTES = 64 * 10**6  # … beyond so many
MAX_NAME = 1024  # characters
_TAR_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, ValueError, NotImplementedError)


@dataclass(frozen=True, slots=True)
class Member:
    """One file: its parts of the path, and its bytes, or why there are none."""

    name: str
    content: bytes
    problem: str = ""


def members(source: Path) -> Iterator[tuple[Member, int]]:
    """Yield each file of an archive or a folder, with how many there are in all (0: not known before the end).

    Hidden files and the ``__MACOSX`` folder are left out. Raises TrainingFailed: ``data_corrupt`` for a damaged or
    hostile archive, ``data_missing`` when there is nothing to read.
    """
    try:
        if source.is_dir():
            yield from _folder(source)
        elif zipfile.is_zipfile(source):
            yield from _zip(source)
        elif source.is_file():
            yield from _tar(source)
        else:
            raise TrainingFailed("data_missing", f"there is no {source.name}", "upload the data set again")
    except _DAMAGED as error:
        raise _corrupt(f"{source.name} is damaged or no archive: {error}"[:300]) from None


def _corrupt(evidence: str) -> TrainingFailed:
    return TrainingFailed(
        "data_corrupt", evidence, "make the archive again: class folders with image files, nothing else"
    )


def _wanted(name: str) -> bool:
    parts = name.split("/")
    return "__MACOSX" not in parts and not any(part.startswith(".") for part in parts) and parts[-1] != "Thumbs.db"


class _Names:
    """Checks each name of an archive once."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def check(self, name: str) -> str:
        """Return the name without ``./`` in front; raises TrainingFailed."""
        clean = name.removeprefix("./")
        parts = clean.rstrip("/").split("/")
        if clean.startswith("/") or ".." in parts or "\\" in clean or clean[1:2] == ":" or len(clean) > MAX_NAME:
            raise _corrupt(f"the name {quoted(name, 200)} leads out of the archive")
        if "" in parts[:-1] or not clean.isprintable():
            raise _corrupt(f"the name {quoted(name, 200)} has empty parts or control characters")
        if clean in self._seen:
            raise _corrupt(f"the name {quoted(name, 200)} occurs twice")
        self._seen.add(clean)
        if len(self._seen) > MAX_MEMBERS:
            raise _corrupt(f"more than {MAX_MEMBERS:,} files")
        return clean


def _folder(source: Path) -> Iterator[tuple[Member, int]]:
    paths = sorted(path for path in source.rglob("*") if _wanted(path.relative_to(source).as_posix()))
    files = [path for path in paths if path.is_file() and not path.is_symlink()]
    names = _Names()
    for path in files:
        name = names.check(path.relative_to(source).as_posix())
        size = path.stat().st_size
        yield (
            (Member(name, b"", _too_large(size)) if size > MAX_MEMBER_BYTES else Member(name, path.read_bytes())),
            len(files),
        )


def _zip(source: Path) -> Iterator[tuple[Member, int]]:
    with zipfile.ZipFile(source) as archive:
        files = _zip_files(archive, source.stat().st_size)
        for info in files:
            yield _zip_member(archive, info), len(files)


def _zip_files(archive: zipfile.ZipFile, archive_bytes: int) -> list[zipfile.ZipInfo]:
    """Return the wanted files in the order of their bytes, after all have been checked."""
    names, files, end = _Names(), [], 0
    for info in sorted(archive.infolist(), key=lambda one: one.header_offset):
        name = names.check(info.orig_filename)
        if info.flag_bits & 1:
            raise _corrupt(f"{quoted(name, 200)} is encrypted")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _corrupt(f"{quoted(name, 200)} is a link or a device")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _corrupt(f"{quoted(name, 200)} is packed by a method other than deflate")
        if info.header_offset < end:
            raise _corrupt(f"{quoted(name, 200)} overlaps another file of the archive")
        end = info.header_offset + 30 + len(info.orig_filename) + info.compress_size
        if not info.is_dir() and _wanted(name):
            files.append(info)
    _bound(sum(info.file_size for info in files), archive_bytes)
    return files


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    if info.file_size > MAX_MEMBER_BYTES:
        return Member(info.filename, b"", _too_large(info.file_size))
    try:
        return Member(info.filename.removeprefix("./"), archive.read(info))
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:  # a wrong CRC: this file alone is bad
        return Member(info.filename.removeprefix("./"), b"", str(error)[:200])


def _too_large(size: int) -> str:
    return f"{size:,} bytes are more than {MAX_MEMBER_BYTES:,}"


def _bound(produced: int, archive_bytes: int) -> None:
    if produced > max(ALWAYS_ALLOWED_BYTES, MAX_RATIO * archive_bytes):
        raise _corrupt(f"{archive_bytes:,} bytes that unpack to more than {MAX_RATIO} times as many")


class _Unpacked:
    """A decompressed stream that refuses to become more than ``MAX_RATIO`` times its archive."""

    def __init__(self, stream: BinaryIO, archive_bytes: int) -> None:
        self._stream, self._archive_bytes, self._produced = stream, archive_bytes, 0

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes."""
        data = self._stream.read(size)
        self._produced += len(data)
        _bound(self._produced, self._archive_bytes)
        return data


class _CheckedHeader(tarfile.TarInfo):
    """A tar header that may not announce a name or a table of a megabyte, which would be read into memory whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Read one block of 512 bytes."""
        header = super().frombuf(buf, encoding, errors)
        if header.type in _TAR_HEADERS and header.size > 1_000_000:
            raise _corrupt(f"a header of {header.size:,} bytes")
        return header


def _tar(source: Path) -> Iterator[tuple[Member, int]]:
    names = _Names()
    with _decompressed(source) as stream:
        unpacked = cast("BinaryIO", _Unpacked(stream, source.stat().st_size))
        with tarfile.open(fileobj=unpacked, mode="r|", tarinfo=_CheckedHeader) as archive:
            for info in archive:
                name = names.check(info.name)
                if not info.isdir() and info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
                    raise _corrupt(f"{quoted(name, 200)} is a link, a device or sparse")
                if info.isreg() and _wanted(name):
                    yield _tar_member(archive, info, name), 0
                archive.members = []  # type: ignore[attr-defined]  # otherwise tarfile keeps every header it has seen


def _tar_member(archive: tarfile.TarFile, info: tarfile.TarInfo, name: str) -> Member:
    if info.size > MAX_MEMBER_BYTES:
        return Member(name, b"", _too_large(info.size))
    file = archive.extractfile(info)
    content = file.read() if file else b""
    return Member(name, content, "" if len(content) == info.size else "the archive ends inside it")


def _decompressed(source: Path) -> BinaryIO:
    with source.open("rb") as file:
        start = file.read(6)
    if start.startswith(b"\x1f\x8b"):
        return cast("BinaryIO", gzip.open(source))
    if start.startswith(b"BZh"):
        return cast("BinaryIO", bz2.open(source))
    if start.startswith(b"\xfd7zXZ"):
        return cast("BinaryIO", lzma.open(source))
    return source.open("rb")
