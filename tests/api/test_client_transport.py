"""What the client does when the network or a proxy misbehaves: a server that plays a script."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stoker.client import events, transport
from stoker.client.access import Access
from stoker.client.errors import ServerError
from stoker.client.job import Job
from stoker.client.transport import Transport

Answer = Callable[[BaseHTTPRequestHandler], None]
JOB = b'{"number": 1, "name": "a", "state": "running"}'


def plain(status: int, body: bytes = b"<html>bad gateway</html>") -> Answer:
    """An answer at once."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer


def stream(text: str) -> Answer:
    """Some events; then the connection ends."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(text.encode())

    return answer


class Script:
    """A server that gives one answer after the other, and the last one from then on."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[str] = []
        self.ids: list[str | None] = []
        self.over = threading.Event()
        script = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                script.requests.append(f"{self.command} {self.path.removeprefix('/api/v1')}")
                script.ids.append(self.headers["Last-Event-ID"])
                with suppress(OSError):  # the client has left
                    script.answers[min(len(script.requests), len(script.answers)) - 1](self)

            do_GET = do_POST = handle_any  # noqa: N815 - the names that http.server looks for

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def heartbeats(self, request: BaseHTTPRequestHandler) -> None:
        """A stream in which nothing happens: comments, until the script is over."""
        request.send_response(200)
        request.end_headers()
        while not self.over.wait(0.02):
            request.wfile.write(b": still here\n\n")


@pytest.fixture
def script() -> Iterator[Script]:
    made = Script()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.over.set()
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@pytest.fixture
def way(script: Script, monkeypatch: pytest.MonkeyPatch) -> Iterator[Transport]:
    """A client's connection to the script; it does not pause between tries."""
    monkeypatch.setattr(transport, "PAUSES_SECONDS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(events, "RECONNECT_SECONDS", 0.0)
    made = Transport(Access(script.url, None, "test", None))
    yield made
    made.close()


def test_a_timeout_holds_while_a_job_is_silent(script: Script, way: Transport) -> None:
    script.answers = [script.heartbeats]
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"not ended within 0\.3 s"):
        list(events.follow(way, "/jobs/1/stream", timeout=0.3))
    assert 0.3 <= time.monotonic() - began < 10
    assert script.requests == ["GET /jobs/1/stream"]


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_stream_goes_on_behind_a_proxy_that_lost_its_server(script: Script, way: Transport, status: int) -> None:
    first = 'event: log\nid: 1-0\ndata: {"text": "a"}\n\n'
    script.answers = [stream(first), plain(status), stream('event: end\nid: 1-0\ndata: {"state": "failed"}\n\n')]
    assert [event.kind for event in events.follow(way, "/jobs/1/stream")] == ["log", "end"]
    assert script.ids == [None, "1-0", "1-0"]


def test_a_stream_that_never_began_says_so_at_once(script: Script, way: Transport) -> None:
    script.answers = [plain(502)]
    with pytest.raises(ServerError, match="502"):
        list(events.follow(way, "/jobs/1/stream"))
    assert len(script.requests) == 1


def test_a_fault_of_the_server_is_not_waited_for(script: Script, way: Transport) -> None:
    script.answers = [stream('event: log\nid: 1-0\ndata: {"text": "a"}\n\n'), plain(500)]
    with pytest.raises(ServerError, match="500"):
        list(events.follow(way, "/jobs/1/stream"))


@pytest.mark.parametrize("verb", ["cancel", "hold", "release"])
def test_what_is_the_same_twice_as_once_is_tried_again(script: Script, way: Transport, verb: str) -> None:
    script.answers = [plain(502), plain(504), plain(200, JOB)]
    getattr(Job(way, {"number": 1}), verb)()
    assert script.requests == [f"POST /jobs/1/{verb}"] * 3


@pytest.mark.parametrize("verb", ["preempt", "retry"])
def test_what_would_happen_twice_is_asked_once(script: Script, way: Transport, verb: str) -> None:
    script.answers = [plain(502), plain(200, JOB)]
    with pytest.raises(ServerError, match="502"):
        getattr(Job(way, {"number": 1}), verb)()
    assert len(script.requests) == 1


def test_a_submit_is_repeated_with_its_key_alone(script: Script, way: Transport) -> None:
    script.answers = [plain(503), plain(200, JOB)]
    with pytest.raises(ServerError):
        way.post("/jobs", {})
    script.requests.clear()
    assert way.post("/jobs", {}, key="k")["number"] == 1
    assert len(script.requests) == 2
