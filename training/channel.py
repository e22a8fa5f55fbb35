"""The one line between a trainer and its supervisor: JSON, a message a line, both ways."""

import json
import socket
import threading
from typing import Any

from stoker.errors import StokerError

MAX_LINE_BYTES = 64 * 1024


class ChannelClosed(StokerError):
    """The supervisor is gone: the trainer must end at once."""

    code = "channel_closed"

    def __str__(self) -> str:
        return "the supervisor closed the channel"


class Channel:
    """Send messages from any thread; take requests without waiting."""

    def __init__(self, connection: socket.socket) -> None:
        """Use a connected stream socket, which stays the caller's to close."""
        self._socket = connection
        self._lock = threading.Lock()  # the thread that writes checkpoints sends too
        self._received = b""

    def send(self, message: dict[str, Any]) -> None:
        """Send one message; waits while the supervisor is too slow to take it.

        Raises ChannelClosed, and ValueError for a message of more than 64 KiB or with NaN or an infinity in it.
        """
        line = json.dumps(message, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(f"a {message.get('type')} message of {len(line)} bytes is longer than {MAX_LINE_BYTES}")
        with self._lock:
            try:
                self._socket.sendall(line)
            except (BrokenPipeError, ConnectionResetError):
                raise ChannelClosed from None

    def requests(self) -> list[str]:
        """Return the types of the requests that have come since the last call; an unknown line is passed over.

        Raises ChannelClosed at the end of the file.
        """
        try:
            data = self._socket.recv(MAX_LINE_BYTES, socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return []
        except ConnectionResetError:
            raise ChannelClosed from None
        if not data:
            raise ChannelClosed
        *lines, self._received = (self._received + data).split(b"\n")
        self._received = self._received[-MAX_LINE_BYTES:]
        return [kind for kind in map(_kind, lines) if kind]


def _kind(line: bytes) -> str:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return ""
    kind = message.get("type") if isinstance(message, dict) else ""
    return kind if isinstance(kind, str) else ""
