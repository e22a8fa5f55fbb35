"""Receivers of notifications: a small web server and a small mail server, both real, on ports of their own."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext
from typing import Any


@dataclass
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes


class Hook(ThreadingHTTPServer):
    """Keeps what is posted, and answers with the next of ``answers``, at last with 204 for ever."""

    daemon_threads = True

    def __init__(self, answers: list[tuple[int, dict[str, str]]], tls: SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Posts)
        self.received: list[Received] = []
        self.answers = answers
        self.silent = False  # takes requests and answers nothing, until it ends
        self.ended = threading.Event()
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self.port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news."""


class _Posts(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append(Received(self.path, dict(self.headers), body))
        if self.server.silent:
            self.server.ended.wait(60)
            return
        status, headers = self.server.answers.pop(0) if self.server.answers else (204, {})
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    do_GET = do_POST  # noqa: N815 - the base class's name; a redirect that is followed would come as one

    def log_message(self, *_: object) -> None: ...


@contextmanager
def hook(*answers: tuple[int, dict[str, str]], tls: SSLContext | None = None) -> Iterator[Hook]:
    with Hook(list(answers), tls) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.ended.set()
            server.shutdown()
            thread.join(10)


@dataclass
class Mail:
    """What was handed in once: envelope and text."""

    sender: str
    recipients: list[str]
    data: bytes


@dataclass
class _Mails:
    kept: list[Mail] = field(default_factory=list)
    refusal: str | None = None  # what RCPT is answered with


class MailServer(socketserver.ThreadingTCPServer):
    """Speaks as much SMTP as one mail takes; offers no TLS and no login."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Smtp)
        self.mails = _Mails()

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Smtp(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        self._say("220 mail.test")
        sender, recipients = "", list[str]()
        while line := self.rfile.readline().decode().strip():
            verb = line[:4].upper()
            if verb == "MAIL":
                sender = line.split(":", 1)[1].split()[0].strip("<>")
            elif verb == "RCPT" and self.server.mails.refusal:
                self._say(self.server.mails.refusal)
                continue
            elif verb == "RCPT":
                recipients.append(line.split(":", 1)[1].strip("<>"))
            elif verb == "DATA":
                self._say("354 go on")
                self.server.mails.kept.append(Mail(sender, recipients, self._data()))
            elif verb == "QUIT":
                self._say("221 bye")
                return
            self._say("250 good")

    def _data(self) -> bytes:
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line)
        return b"".join(lines)

    def _say(self, text: str) -> None:
        self.wfile.write(text.encode() + b"\r\n")


@contextmanager
def mail_server() -> Iterator[MailServer]:
    with MailServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(10)
