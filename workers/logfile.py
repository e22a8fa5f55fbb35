"""What a trainer prints: a file that cannot grow without end, read at a bounded rate."""

import os
import re
from pathlib import Path

from stoker.training.masking import Mask

READ_BYTES = 64 * 1024  # in one go
BEHIND_BYTES = 1024 * 1024  # further behind than this, the reader jumps to the end
FILE_BYTES = 16 * 1024 * 1024  # a longer file is emptied; the writer appends, so it goes on at the start
TOTAL_BYTES = 10 * 1024 * 1024  # kept of one attempt
TAIL_BYTES = 16 * 1024  # kept as evidence
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(\x07|\x1b\\)?|\x1b.")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class LogFile:
    """The file to which a trainer's stdout and stderr go."""

    def __init__(self, path: Path, mask: Mask | None = None) -> None:
        """Make the file (0600); what ``mask`` takes out is never handed on."""
        self._mask = mask or Mask()
        flags = os.O_CLOEXEC | os.O_NOFOLLOW
        self.writer = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | flags, 0o600)
        self._reader = os.open(path, os.O_RDWR | flags)
        self._offset = 0
        self._kept = 0
        self._lost = 0  # bytes that were never read
        self._tail = b""

    def read(self) -> str:
        """What was written since the last call, cleaned; says how much was left out."""
        size = os.fstat(self._reader).st_size
        full, left_out = size > FILE_BYTES, self._lost
        if size - self._offset > (READ_BYTES if full else BEHIND_BYTES):
            left_out += size - READ_BYTES - self._offset
            self._offset = size - READ_BYTES
        data = self._next()
        if full:
            data += self._next()  # what came meanwhile may be the last words
        self._lost = self._empty() if full else 0
        if not left_out:
            return self._within_limit(self._keep(self._mask.feed(data)))
        self._mask.rest()
        data = self._mask.feed(data)[self._mask.reach :]  # what follows a gap may begin inside a secret
        return self._within_limit(f"\n[{left_out:,} bytes left out]\n{self._keep(data)}")

    def _keep(self, data: bytes) -> str:
        self._tail = (self._tail + data)[-TAIL_BYTES:]
        return clean(data)

    def _next(self) -> bytes:
        data = os.pread(self._reader, READ_BYTES, self._offset)
        self._offset += len(data)
        return data

    def _empty(self) -> int:
        """Make the file empty; returns how many bytes were written since the last read, and so are lost."""
        lost = max(0, os.fstat(self._reader).st_size - self._offset)
        os.ftruncate(self._reader, 0)
        self._offset = 0
        return lost

    def read_end(self) -> str:
        """The rest, once nobody writes any more; of a long rest only the end."""
        found = self.read()
        while self._offset < os.fstat(self._reader).st_size:
            found += self.read()
        return found + self._within_limit(self._keep(self._mask.rest()))

    @property
    def tail(self) -> str:
        """The last that was read, as evidence."""
        return clean(self._tail)

    def last_lines(self, count: int) -> str:
        """The last lines that were read, as evidence."""
        return "\n".join(self.tail.strip().splitlines()[-count:])

    def close(self) -> None:
        """Give back the descriptors."""
        os.close(self.writer)
        os.close(self._reader)

    def _within_limit(self, text: str) -> str:
        if self._kept >= TOTAL_BYTES:
            return ""
        self._kept += len(text)
        return text if self._kept < TOTAL_BYTES else text + f"\n[the log ends here: more than {TOTAL_BYTES:,} bytes]\n"


def clean(data: bytes) -> str:
    """Bytes that a program printed, as text that is safe to keep and show: no escape sequences, no NUL."""
    text = data.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROLS.sub("", _ESCAPES.sub("", text))
