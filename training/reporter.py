"""What a training tells its supervisor, at a bounded rate, and what it is asked."""

import time
from typing import Any

from stoker.training.channel import Channel

PROGRESS_SECONDS = 0.25
METRICS_SECONDS = 0.25
METRICS_POINTS = 1000  # in one message, which stays far below its limit
POLL_SECONDS = 0.003


class Reporter:
    """Sends progress and metrics in batches; looks for requests every few milliseconds."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._points: dict[str, tuple[list[int], list[float]]] = {}
        self._next_poll = self._next_progress = self._next_metrics = 0.0
        self._images = 0  # since the last progress message
        self._counted_since = time.monotonic()
        self.stop_asked = False
        self.checkpoint_asked = False

    def send(self, kind: str, **fields: Any) -> None:
        """Send one message now, after the metrics that came before it."""
        self.flush()
        self._channel.send({"type": kind, **fields})

    def announce(self, kind: str, **fields: Any) -> None:
        """Send one message now; for other threads than that of the loop, whose metrics it leaves alone."""
        self._channel.send({"type": kind, **fields})

    def metric(self, key: str, step: int, value: float) -> None:
        """Keep a point of a curve for the next batch."""
        steps, values = self._points.setdefault(key, ([], []))
        steps.append(step)
        values.append(value)
        if len(steps) >= METRICS_POINTS:
            self.flush()

    def flush(self) -> None:
        """Send the points that were kept."""
        points, self._points = self._points, {}
        for key, (steps, values) in points.items():
            self._channel.send({"type": "metrics", "key": key, "steps": steps, "values": values})

    def counts(self, images: int) -> None:
        """Count images for the speed that progress messages show."""
        self._images += images

    def due(self) -> bool:
        """Whether it is time for ``look``: cheap enough to ask at each step."""
        return time.monotonic() >= self._next_poll

    def look(self) -> None:
        """Take requests; send metrics that have waited long enough. Raises ChannelClosed."""
        now = time.monotonic()
        self._next_poll = now + POLL_SECONDS
        requests = self._channel.requests()
        self.stop_asked |= "stop" in requests
        self.checkpoint_asked |= "checkpoint" in requests
        if self._points and now >= self._next_metrics:
            self.flush()
            self._next_metrics = now + METRICS_SECONDS

    def progress(self, phase: str, *, epoch: int, epochs: int, step: int, steps: int, force: bool = False) -> None:
        """Say how far a phase has come (epoch and step: completed), at most four times a second unless forced."""
        now = time.monotonic()
        if now < self._next_progress and not force:
            return
        self._next_progress = now + PROGRESS_SECONDS
        speed = self._images / max(now - self._counted_since, 1e-6)
        self._images, self._counted_since = 0, now
        self._channel.send(
            {"type": "progress", "phase": phase, "epoch": epoch, "epochs": epochs, "step": step, "steps": steps,
             "images_per_second": round(speed, 1)}
        )  # fmt: skip
