"""The live stream of a job: server-sent events, read again from where a connection broke."""

import json
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx

from stoker.client.errors import ServerError, ServerUnreachable
from stoker.client.transport import BUSY, Transport
from stoker.errors import StokerError, Unavailable

SILENCE_SECONDS = 40.0  # the server says something every 15 s; a longer silence is a broken connection
PATIENCE_SECONDS = 60.0  # how long a server that was there may be away
RECONNECT_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a job: state, progress, metric, log, or end (the last one)."""

    kind: str
    data: dict[str, Any]
    id: str | None = None


def parse(lines: Iterable[str]) -> Iterator[Event]:
    """Read the lines of a text/event-stream; comments and events without a JSON object are passed over."""
    kind, data, identity = "message", list[str](), None
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                kind = value
            elif name == "data":
                data.append(value)
            elif name == "id":
                identity = value
            continue
        if (document := _object("\n".join(data))) is not None:
            yield Event(kind, document, identity)
        kind, data = "message", []


def _object(text: str) -> dict[str, Any] | None:
    try:
        document = json.loads(text)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def follow(transport: Transport, path: str, timeout: float | None = None) -> Iterator[Event]:
    """Yield the events of a job until its end.

    A connection that breaks is made again, with the last event's id, for up to a minute.

    Args:
        transport: The server.
        path: Of the stream, below the prefix.
        timeout: Seconds until TimeoutError; None: no limit.

    Raises:
        TimeoutError: The job has not ended in time.
        ServerUnreachable: No connection at first, or none for a minute.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    last_id: str | None = None
    heard = None  # when the server was last there
    while True:
        try:
            for event in _connection(transport, path, last_id, deadline):
                last_id, heard = event.id or last_id, time.monotonic()
                yield event
                if event.kind == "end":
                    return
                _check(deadline, timeout)
        except (ServerUnreachable, Unavailable, ServerError) as error:
            _check(deadline, timeout)
            if not _passing(error) or heard is None or time.monotonic() - heard > PATIENCE_SECONDS:
                raise
        else:
            heard = time.monotonic()  # closed in an orderly way, as a server does that is restarted
        _check(deadline, timeout)
        time.sleep(RECONNECT_SECONDS)


def _passing(error: StokerError) -> bool:
    """Whether a try later may help: a proxy answers 502 while the server behind it is restarted."""
    return not isinstance(error, ServerError) or error.status in BUSY


def _connection(transport: Transport, path: str, last_id: str | None, deadline: float | None) -> Iterator[Event]:
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
    left = SILENCE_SECONDS if deadline is None else max(0.05, min(SILENCE_SECONDS, deadline - time.monotonic()))
    with transport.stream(path, headers=headers, read_seconds=left) as response, _cut_off(response, deadline):
        yield from parse(response.iter_lines())


@contextmanager
def _cut_off(response: httpx.Response, deadline: float | None) -> Iterator[None]:
    """Break the connection at the deadline: each comment of a silent job starts the time of reading anew."""
    if deadline is None:
        yield
        return
    timer = threading.Timer(max(0.0, deadline - time.monotonic()), _shut_down, [response])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _shut_down(response: httpx.Response) -> None:
    with suppress(OSError):  # it was closed just now
        response.extensions["network_stream"].get_extra_info("socket").shutdown(socket.SHUT_RDWR)


def _check(deadline: float | None, timeout: float | None) -> None:
    if deadline is not None and time.monotonic() >= deadline:
        raise TimeoutError(f"the job has not ended within {timeout:g} s")
