"""Wakes the live streams of a job when something about it has changed."""

import asyncio
import contextlib
import os
import select
import threading
from collections import defaultdict
from collections.abc import Iterator

import psycopg
from sqlalchemy import make_url

from stoker.jobs.moves import SHOW
from stoker.log import Events

RECONNECT_SECONDS = 1.0
SILENCE_SECONDS = 15.0  # after so long without a notice it is looked whether the connection still lives

log = Events("stoker.feed")


class Feed:
    """One thread that LISTENs, and an ``asyncio.Event`` for each open stream.

    An event is set or it is not: however fast a job reports, nothing piles up for a slow reader.
    """

    def __init__(self, database_url: str) -> None:
        self._url = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
        self._waiting: dict[int, set[tuple[asyncio.AbstractEventLoop, asyncio.Event]]] = defaultdict(set)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._end = os.eventfd(0, os.EFD_CLOEXEC)  # readable once the thread shall end
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    @property
    def stopped(self) -> bool:
        """Whether streams shall end, because the process does."""
        return self._stopping.is_set()

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return sum(len(places) for places in self._waiting.values())

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End every stream soon; does not wait."""
        self._stopping.set()
        os.eventfd_write(self._end, 1)
        self._wake(None)

    def join(self) -> None:
        """End the thread."""
        self.close()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    @contextlib.contextmanager
    def subscribe(self, number: int) -> Iterator[asyncio.Event]:
        """An event that is set when the job may have changed; for use in the running event loop."""
        place = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._waiting[number].add(place)
        try:
            yield place[1]
        finally:
            with self._lock:
                self._waiting[number].discard(place)
                if not self._waiting[number]:
                    del self._waiting[number]

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen()
            except psycopg.Error as error:
                log.warning("feed_lost", error=str(error).splitlines()[0] if str(error) else type(error).__name__)
                self._stopping.wait(RECONNECT_SECONDS)

    def _listen(self) -> None:
        with psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=3,
            tcp_user_timeout=5000,  # milliseconds
            keepalives_idle=5,
            application_name="stoker feed",
        ) as connection:
            connection.execute(f"LISTEN {SHOW}")
            self._wake(None)  # what was said before we listened
            while not self._stopping.is_set():
                ready, _, _ = select.select([connection.fileno(), self._end], [], [], SILENCE_SECONDS)
                if not ready:
                    connection.execute(f"LISTEN {SHOW}")  # raises where the other end has gone without a word
                for notice in connection.notifies(timeout=0):
                    self._wake(int(notice.payload) if notice.payload.isdecimal() else None)

    def _wake(self, number: int | None) -> None:
        """Wake the streams of a job, or all of them."""
        with self._lock:
            groups = self._waiting.values() if number is None else [self._waiting.get(number, set())]
            places = [place for group in groups for place in group]
        for loop, event in places:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(event.set)
