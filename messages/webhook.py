"""One POST to a webhook that a user named: to a checked address, without redirects, with an end to every wait."""

import hashlib
import hmac
import ipaddress
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from stoker.errors import Undelivered
from stoker.jobs.allowance import Address, Allowance
from stoker.jobs.recipients import Webhook

MOST_SECONDS = 10.0  # for one POST, from the look-up of the name to the status line
MOST_ADDRESSES = 3  # of one host, tried in turn
MOST_LINE_BYTES = 4096  # of the answer, of which nothing but the status is read
PASSING = frozenset({408, 425, 429})  # of the 4xx, those that may go away


def resolve(host: str, port: int) -> list[Address]:
    """The addresses of a host, the preferred one first; raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ipaddress.ip_address(entry[4][0]) for entry in found if "%" not in str(entry[4][0])))


def signature(key: str, body: bytes, seconds: int) -> str:
    """The value of `Stoker-Signature`: the time in seconds since 1970, and an HMAC-SHA-256 over time, dot and body."""
    digest = hmac.new(key.encode(), f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={seconds},v1={digest}"


@dataclass(frozen=True, slots=True)
class Poster:
    """Posts JSON where the administrator allows it."""

    allowance: Allowance
    resolve: Callable[[str, int], list[Address]] = resolve
    most_seconds: float = MOST_SECONDS
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)  # SSL_CERT_FILE names other authorities

    def post(self, webhook: Webhook, body: bytes, headers: dict[str, str]) -> None:
        """Post a body; a status of 2xx is success.

        Raises Undelivered, whose text tells nothing of what was answered but its status.
        """
        until = time.monotonic() + self.most_seconds
        with self._connect(webhook, until) as connection:
            try:
                status = _exchange(connection, _request(webhook, body, headers), until)
            except OSError as error:
                raise Undelivered(_words(error)) from None
        if not 200 <= status < 300:
            told = " (redirects are not followed)" if 300 <= status < 400 else ""
            raise Undelivered(f"it answered {status}{told}", again=not 300 <= status < 500 or status in PASSING)

    def _connect(self, webhook: Webhook, until: float) -> socket.socket:
        """Connect to one of the addresses that were checked: the name is not looked up a second time."""
        good = self.allowance.reachable(webhook, self._look_up(webhook, until))[:MOST_ADDRESSES]
        if not good:  # one text for both: whether an inner name exists is nobody's business
            raise Undelivered("its host has no address that is allowed here")
        problem: OSError = TimeoutError()
        for address in good:
            try:
                plain = socket.create_connection((str(address), webhook.port), timeout=_left(until))
            except OSError as error:
                problem = error
                continue
            return self._secured(plain, webhook, until) if webhook.secure else plain
        raise Undelivered(_words(problem))

    def _look_up(self, webhook: Webhook, until: float) -> list[Address]:
        """The addresses of a host; none if the resolver, which takes as long as it likes, has not answered by then."""
        answers: queue.SimpleQueue[list[Address]] = queue.SimpleQueue()

        def look_up() -> None:
            try:
                answers.put(self.resolve(webhook.host, webhook.port))
            except (OSError, UnicodeError):
                answers.put([])

        threading.Thread(target=look_up, name="look up", daemon=True).start()
        try:
            return answers.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            return []

    def _secured(self, plain: socket.socket, webhook: Webhook, until: float) -> socket.socket:
        try:
            plain.settimeout(_left(until))
            return self.tls.wrap_socket(plain, server_hostname=webhook.host)
        except (OSError, ValueError) as error:
            plain.close()
            raise Undelivered(_words(error)) from None


def _request(webhook: Webhook, body: bytes, headers: dict[str, str]) -> bytes:
    lines = [f"POST {webhook.target} HTTP/1.1", f"Host: {webhook.authority}", "User-Agent: stoker"]
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def _exchange(connection: socket.socket, request: bytes, until: float) -> int:
    """Send, and read the status; raises OSError, and Undelivered for what is no HTTP."""
    connection.settimeout(_left(until))
    connection.sendall(request)
    line = b""
    while b"\n" not in line and len(line) < MOST_LINE_BYTES:
        connection.settimeout(_left(until))
        if not (piece := connection.recv(MOST_LINE_BYTES - len(line))):
            break
        line += piece
    words = line.partition(b"\n")[0].split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not (len(words[1]) == 3 and words[1].isdigit()):
        raise Undelivered("it did not answer with HTTP")
    return int(words[1])


def _left(until: float) -> float:
    """What is left of the time; raises TimeoutError when nothing is."""
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _words(error: OSError | ValueError) -> str:
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not good: {error.verify_message}"
    if isinstance(error, ConnectionRefusedError):
        return "it refused the connection"
    return "the connection failed"
