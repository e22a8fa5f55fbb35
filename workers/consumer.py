"""Celery's consumer with two defects mended: slow reconnects, and a crash while closing a connection that is dead."""

from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer
from celery.worker.state import maybe_shutdown

from stoker.log import Events

events = Events(__name__)
RECONNECT_SECONDS = 0.5  # between the first tries, then more, up to
LONGEST_RECONNECT_SECONDS = 2.0  # with Celery's own growing pause a worker was back 13 s after an outage of 60 s


class Consumer(CeleryConsumer):
    """Reads this worker's queue."""

    def on_connection_error_after_connected(self, exc: BaseException) -> None:
        """Close what is left of the lost connection."""
        try:
            super().on_connection_error_after_connected(exc)
        except AttributeError as error:  # kombu, when a blocking read was under way
            events.info("lost_connection_closed", error=str(error))

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, trying again until it works or the worker stops."""

        def failed(error: BaseException, interval: float) -> None:
            events.warning("broker_away", error=str(error)[:300], again_in_seconds=interval)

        conn.ensure_connection(
            failed,
            None,
            interval_start=RECONNECT_SECONDS,
            interval_step=RECONNECT_SECONDS,
            interval_max=LONGEST_RECONNECT_SECONDS,
            callback=maybe_shutdown,
        )
        self.first_connection_attempt = False
        return conn
