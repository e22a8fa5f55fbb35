"""Celery's consumer with three defects mended: slow reconnects, a crash while closing a connection that is dead,
and an end of the whole worker when something that is no message lies in its queue."""

import queue
from collections.abc import Callable
from typing import Any

from celery import bootsteps
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


class Sieve(bootsteps.StartStopStep):
    """Drops what cannot be read as a message, instead of letting it end the event loop."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        """Stand before the function that reads the queue, on each new connection."""
        channel = consumer.task_consumer.channel
        handlers = channel.handlers
        lost = [error for error in channel.connection_errors if error is not KeyError]  # kombu counts it among them
        passing = (queue.Empty, *lost)
        handlers["BRPOP"] = self._sieved(handlers["BRPOP"], passing)

    @staticmethod
    def _sieved(read: Callable[..., Any], passing: tuple[type[BaseException], ...]) -> Callable[..., Any]:
        def sieved(*args: Any, **kwargs: Any) -> Any:
            try:
                return read(*args, **kwargs)
            except passing:
                raise
            except Exception as error:  # whatever garbage makes of a parser
                events.warning("message_dropped", reason="it is none", error=type(error).__name__)
                return None

        return sieved
