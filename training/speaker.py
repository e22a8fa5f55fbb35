"""The main process's side of the channel, for code that must not wait for it and must not fail by it.

A thread of its own sends what has gathered, four times a second, and hears what is asked. Imports no torch.
"""

import os
import select
import socket
import threading
from typing import Any

from stoker.training.channel import Channel, ChannelClosed
from stoker.training.curves import Curves

PAUSE_SECONDS = 0.25
PAUSE_SECONDS_PER_CURVE = 0.01  # one message each, of 200 a second that are taken
_NOTE_CHARACTERS = 4000

Progress = dict[str, Any]


class Speaker:
    """Says things from any thread. When the supervisor is gone it falls silent; nothing is ever raised."""

    def __init__(self, connection: socket.socket) -> None:
        """Speak through a connected stream socket; requests are heard from now on."""
        self._socket, self._channel = connection, Channel(connection)
        self.stop_asked = self.checkpoint_asked = False
        self._curves = Curves()
        self._gathering = threading.Lock()  # of the curves and the progress; held for moments
        self._sending = threading.Lock()  # from taking points to having sent them: they must arrive in order
        self._progress: Progress | None = None
        self._mute = False
        self._wake, self._woken = os.pipe()
        self._thread = threading.Thread(target=self._run, name="stoker", daemon=True)
        self._thread.start()

    def mute(self) -> None:
        """Fall silent for good: this is a forked child, whose parent goes on speaking."""
        self._mute = True
        self._socket.close()  # nobody shall wait for the child to see the parent's end

    @property
    def nan(self) -> str | None:
        """Where a loss was NaN or infinite, if one was."""
        return self._curves.nan

    def log(self, metrics: dict[str, Any], step: int) -> None:
        """Keep points for the next time."""
        if self._mute:
            return
        with self._gathering:
            for key, value in metrics.items():
                self._curves.add(key, step, value)

    def latest(self) -> dict[str, float]:
        """The last value of each of the first hundred curves."""
        with self._gathering:
            return dict(list(self._curves.latest.items())[:100])

    def progress(self, progress: Progress) -> None:
        """Keep how far it has come for the next time."""
        self._progress = progress

    def send(self, kind: str, **fields: Any) -> None:
        """Send one message, after what has gathered."""
        self.flush()
        self._send({"type": kind, **fields})

    def announce(self, kind: str, **fields: Any) -> None:
        """Send one message now; from the thread that writes checkpoints."""
        self._send({"type": kind, **fields})

    def note(self, text: str) -> None:
        """Send a sentence for the job's events."""
        self._send({"type": "note", "text": text[:_NOTE_CHARACTERS]})

    def flush(self) -> None:
        """Send what has gathered."""
        if self._mute:
            return
        with self._sending:
            with self._gathering:
                points, notes = self._curves.take(), self._curves.take_notes()
                progress, self._progress = self._progress, None
            for name, steps, values in points:
                self._send({"type": "metrics", "key": name, "steps": steps, "values": values})
            for text in notes:
                self.note(text)
            if progress is not None:
                self._send({"type": "progress", "phase": "train", **progress})

    def close(self) -> None:
        """Send what has gathered and end the thread."""
        if self._mute:
            return
        self.flush()
        self._mute = True
        os.write(self._woken, b"x")
        self._thread.join(1)

    def _send(self, message: dict[str, Any]) -> None:
        if self._mute:
            return
        try:
            self._channel.send(message)
        except (ChannelClosed, OSError):
            self._mute = True
        except ValueError:
            pass  # longer than a message may be, or holds NaN: nothing that a training should end for

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while not self._mute:
            pause = max(PAUSE_SECONDS, len(self._curves) * PAUSE_SECONDS_PER_CURVE)
            if poll.poll(pause * 1000):
                self._hear()
            else:
                self.flush()

    def _hear(self) -> None:
        try:
            requests = self._channel.requests()
        except (ChannelClosed, OSError):
            self._mute = True
            return
        self.stop_asked |= "stop" in requests
        self.checkpoint_asked |= "checkpoint" in requests
