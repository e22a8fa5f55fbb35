"""Bytes on their way in: to a nameless file first, with a limit that is watched while they arrive."""

import asyncio
import contextlib
import errno
import hashlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from stoker.errors import DiskFull, TooLarge

PIECE_BYTES = 2**20
_FORMS = frozenset({"multipart/form-data", "application/x-www-form-urlencoded", "application/json"})
SILENCE_SECONDS = 60.0  # a sender that is silent for longer has gone


@dataclass(frozen=True, slots=True)
class Spooled:
    """A body that lies in a file."""

    path: Path  # of an open descriptor: the file has no name, so that nothing stays when this process is killed
    size: int
    sha256: str


@contextlib.asynccontextmanager
async def spooled(request: Request, folder: Path, limit_bytes: int, what: str = "the upload") -> AsyncIterator[Spooled]:
    """Receive a body into a file without a name; it is gone afterwards.

    Raises TooLarge, DiskFull, and 408 for a sender that went silent.
    """
    _announced(request, limit_bytes, folder, what)
    with await run_in_threadpool(_nameless, folder) as file:
        whole, size = hashlib.sha256(), 0

        def keep(piece: bytes) -> None:
            whole.update(piece)
            with disk_room():
                file.write(piece)

        async for piece in _pieces(request):
            size += len(piece)
            if size > limit_bytes:
                raise TooLarge(what, limit_bytes)
            await run_in_threadpool(keep, piece)
        with disk_room():
            file.flush()
        yield Spooled(Path(f"/proc/self/fd/{file.fileno()}"), size, whole.hexdigest())


def refuse_forms(request: Request, what: str) -> None:
    """Refuse a body that wraps what is sent, or is something else altogether; raises 415."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() in _FORMS:
        raise HTTPException(415, f"send {what} as the body itself, as application/octet-stream")


def _nameless(folder: Path) -> IO[bytes]:
    return tempfile.TemporaryFile(dir=folder)


def private_folder(home: Path, name: str) -> Path:
    """A folder in the home that only we may enter."""
    folder = home / name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def disk_room() -> Iterator[None]:
    """Say that the disk is full where it is; raises DiskFull."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull from None
        raise


def read_pieces(path: Path) -> Iterator[bytes]:
    """Yield a file's content."""
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def _announced(request: Request, limit_bytes: int, folder: Path, what: str) -> None:
    """Refuse before the first byte what says that it is too large."""
    length = request.headers.get("content-length", "0")
    announced = int(length) if length.isdecimal() and len(length) < 19 else 0
    if announced > limit_bytes:
        raise TooLarge(what, limit_bytes)
    if announced > shutil.disk_usage(folder).free:
        raise DiskFull


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    """Yield the body in pieces of about a MiB: each one costs a change of thread."""
    waiting = bytearray()
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                piece = await anext(stream, None)
        except TimeoutError:
            raise HTTPException(408, "the sender was silent for too long; send it again") from None
        if piece is None:
            break
        waiting += piece
        if len(waiting) >= PIECE_BYTES:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)
