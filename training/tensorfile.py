"""Files in the safetensors format, read within bounds and written whole or not at all. Imports no torch.

A file is 8 bytes with the length of the header (little endian), the header (JSON: name -> dtype, shape, begin and end
of the bytes, plus a ``__metadata__`` of texts), then the bytes of the tensors without holes. A header is at most 100 MB
and is never trusted: a reader gets only entries whose shape, type and place agree with each other and with the file.
"""

import hashlib
import itertools
import json
import math
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from stoker.errors import StokerError
from stoker.quoting import quoted

_TYPES_BY_BYTES = {8: "F64 I64 U64", 4: "F32 I32 U32", 2: "F16 BF16 I16 U16", 1: "I8 U8 BOOL"}
ITEM_BYTES = {dtype: size for size, names in _TYPES_BY_BYTES.items() for dtype in names.split()}
MAX_HEADER_BYTES = 100_000_000
MAX_TENSORS = 1_000_000
MAX_DIMENSIONS = 16


class TensorFileDamaged(StokerError):
    """The bytes are no well-formed safetensors file."""

    code = "tensor_file_damaged"

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"not a valid safetensors file: {self.problem}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor: bytes ``begin`` to ``end`` after the header."""

    name: str
    dtype: str  # one of ITEM_BYTES
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class Header:
    """What a file holds. Entries are in the order of their bytes."""

    entries: tuple[Entry, ...]
    metadata: Mapping[str, str]
    data_start: int  # where the bytes of the tensors begin in the file


def entry(name: str, dtype: str, shape: Iterable[int], begin: int) -> Entry:
    """Return the entry of a tensor whose bytes begin at ``begin``."""
    sizes = tuple(shape)
    return Entry(name, dtype, sizes, begin, begin + ITEM_BYTES[dtype] * math.prod(sizes))


def read_header(file: BinaryIO, size: int | None = None) -> Header:
    """Read and check the header of an open file; leaves the position where the bytes begin.

    ``size``: bytes of all, where ``file`` gives no more than the beginning. Raises TensorFileDamaged.
    """
    size = os.fstat(file.fileno()).st_size if size is None else size
    if size < 10:
        raise TensorFileDamaged(f"{size} bytes are too few")
    (length,) = struct.unpack("<Q", file.read(8))
    if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
        raise TensorFileDamaged(f"a header of {length} bytes in a file of {size}")
    document = _parse(file.read(length))
    metadata = document.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise TensorFileDamaged("metadata that are not texts")
    if len(document) > MAX_TENSORS:
        raise TensorFileDamaged(f"{len(document)} tensors are too many")
    entries = sorted((_entry(name, value) for name, value in document.items()), key=lambda one: (one.begin, one.end))
    _check_places(entries, size - 8 - length)
    return Header(tuple(entries), metadata, 8 + length)


def _parse(raw: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(pairs) != len(dict(pairs)):
            raise TensorFileDamaged("a name occurs twice")
        return dict(pairs)

    try:
        document = json.loads(raw.decode(), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise TensorFileDamaged(f"a header that is no JSON ({type(error).__name__})") from None
    if not isinstance(document, dict):
        raise TensorFileDamaged("a header that is no mapping")
    return document


def _entry(name: str, value: Any) -> Entry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise TensorFileDamaged(f"tensor {quoted(name, 80)} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if dtype not in ITEM_BYTES if isinstance(dtype, str) else True:
        raise TensorFileDamaged(f"tensor {quoted(name, 80)} has an unknown type")
    if not _counts(shape) or len(shape) > MAX_DIMENSIONS or not _counts(offsets) or len(offsets) != 2:
        raise TensorFileDamaged(f"tensor {quoted(name, 80)} has an impossible shape or place")
    if offsets[1] - offsets[0] != ITEM_BYTES[dtype] * math.prod(shape):
        raise TensorFileDamaged(f"tensor {quoted(name, 80)}: shape, type and place do not agree")
    return Entry(name, dtype, tuple(shape), offsets[0], offsets[1])


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _check_places(entries: list[Entry], available: int) -> None:
    position = 0
    for one in entries:
        if one.begin != position:
            raise TensorFileDamaged(f"tensor {quoted(one.name, 80)} overlaps another or leaves a hole")
        position = one.end
    if position != available:
        raise TensorFileDamaged(f"{available} bytes of tensors where the header describes {position}")


def pack_header(entries: Iterable[Entry], metadata: Mapping[str, str]) -> bytes:
    """Return the length and the header, padded so that the bytes begin at a multiple of 64 (for mapped reads)."""
    document: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    for one in entries:
        document[one.name] = {"dtype": one.dtype, "shape": one.shape, "data_offsets": (one.begin, one.end)}
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % 64)
    if len(text) > MAX_HEADER_BYTES:
        raise TensorFileDamaged(f"a header of {len(text)} bytes cannot be written")
    return struct.pack("<Q", len(text)) + text


def write(path: Path, header: bytes, chunks: Iterable[memoryview | bytes]) -> tuple[int, str]:
    """Write a file aside, sync it, and rename it into place; returns its bytes and SHA-256 (hexadecimal).

    Raises OSError; nothing is then left behind.
    """
    partial = path.with_name(f".{path.name}.partial")
    digest, size = hashlib.sha256(), 0
    try:
        with partial.open("wb", buffering=0) as file:
            for chunk in itertools.chain([header], chunks):
                digest.update(chunk)
                size += write_all(file, chunk)
            os.fsync(file.fileno())
        partial.rename(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return size, digest.hexdigest()


def write_all(file: Any, chunk: memoryview | bytes) -> int:
    """Write every byte (a raw file may take fewer than it is given); returns how many."""
    view = memoryview(chunk).cast("B")
    done = 0
    while done < len(view):
        done += file.write(view[done : done + 2**30])
    return done


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
