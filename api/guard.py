"""The outermost layer of every request: a time limit, a last answer for any error, safe headers, a line in the log."""

import asyncio
import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stoker.api.problems import internal, of_error
from stoker.errors import Unavailable
from stoker.log import Events

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
LIMIT_SECONDS = 35.0  # to the first byte of an answer; a statement is ended by the database after 30 s
UNLIMITED = frozenset(
    {("POST", "/api/v1/datasets"), ("POST", "/api/v1/code")}
)  # takes as long as its bytes; each of them has a limit

log = Events("stoker.api")


class Answer:
    """Passes an answer on, with the headers that every one has, until it is closed."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None  # none before it has begun
        self.closed = False

    async def send(self, message: Message) -> None:
        """Send a message of ASGI."""
        if self.closed:
            return  # the client was told already that it took too long
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, limit_seconds: float = LIMIT_SECONDS) -> None:
        self._app, self._limit_seconds = app, limit_seconds
        self._late: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        answer = Answer(send)
        try:
            await self._limited(scope, receive, answer)
        finally:
            log.info(
                "http_request",
                method=scope["method"],
                path=scope["path"],
                status=answer.status,
                ms=round((time.perf_counter() - began) * 1000, 1),
            )

    async def _limited(self, scope: Scope, receive: Receive, answer: Answer) -> None:
        """Give the application its time to begin an answer.

        A thread that hangs cannot be ended, so the task is left alone, and the client is told to try again.
        """
        task = asyncio.create_task(self._caught(scope, receive, answer))
        unlimited = (scope["method"], scope["path"]) in UNLIMITED
        try:
            await asyncio.wait({task}, timeout=None if unlimited else self._limit_seconds)
            if not task.done() and answer.status is None:
                self._late.add(task)
                task.add_done_callback(self._late.discard)
                await of_error(Unavailable("Stoker"))(scope, receive, answer.send)
                answer.closed = True
                return
            await task
        except asyncio.CancelledError:
            task.cancel()
            raise

    async def _caught(self, scope: Scope, receive: Receive, answer: Answer) -> None:
        try:
            await self._app(scope, receive, answer.send)
        except Exception:
            log.error("request_failed", path=scope["path"])
            if answer.status is not None:
                raise  # half an answer is out: only cutting the connection shows that the rest will not come
            await internal()(scope, receive, answer.send)
