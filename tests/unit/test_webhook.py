"""A notification over HTTP: where it connects to, what it reads of an answer, and how long it waits."""

import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from stoker.errors import Undelivered
from stoker.jobs.allowance import Address, Allowance
from stoker.jobs.recipients import Webhook
from stoker.messages.webhook import Poster, signature
from tests.support.receivers import Hook, hook

LOOPBACK = ipaddress.ip_address("127.0.0.1")
METADATA = ipaddress.ip_address("169.254.169.254")


@pytest.fixture
def receiver() -> Iterator[Hook]:
    with hook() as server:
        yield server


def listed(server: Hook) -> Allowance:
    return Allowance.of("public", server.authority)


def to(server: Hook, target: str = "/", host: str = "127.0.0.1") -> Webhook:
    return Webhook(False, host, server.port, target)


def test_it_posts_what_it_is_given(receiver: Hook) -> None:
    Poster(listed(receiver)).post(to(receiver, "/a?b=c"), b'{"job": 7}', {"Stoker-Delivery": "1"})
    (request,) = receiver.received
    assert (request.path, request.body) == ("/a?b=c", b'{"job": 7}')
    assert request.headers["Host"] == receiver.authority
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Stoker-Delivery"] == "1"


def test_a_name_that_leads_inside_is_not_connected_to(receiver: Hook) -> None:
    poster = Poster(Allowance.of("public", f"hooks.lab:{receiver.port}"), lambda *_: [METADATA])
    with pytest.raises(Undelivered, match="has no address that is allowed here"):
        poster.post(to(receiver, host="hooks.lab"), b"{}", {})
    with pytest.raises(Undelivered, match="has no address that is allowed here"):
        Poster(Allowance("public")).post(Webhook(True, "localhost", 443, "/"), b"{}", {})
    assert receiver.received == []


def test_a_name_that_changes_between_check_and_connection_gains_nothing(receiver: Hook) -> None:
    answers: list[list[Address]] = [[LOOPBACK], [METADATA]]
    poster = Poster(Allowance.of("public", receiver.authority), lambda *_: answers.pop(0))
    poster.post(to(receiver, host="rebinding.example"), b"{}", {})
    assert len(answers) == 1, "the name was looked up once, and its checked address connected to"
    assert receiver.received[0].headers["Host"] == f"rebinding.example:{receiver.port}"


def test_a_resolver_that_hangs_costs_no_more_than_a_receiver_that_does(receiver: Hook) -> None:
    answered = threading.Event()

    def late(_host: str, _port: int) -> list[Address]:
        answered.wait(10)
        return [LOOPBACK]

    with pytest.raises(Undelivered, match="has no address that is allowed here"):
        Poster(listed(receiver), late, most_seconds=0.2).post(to(receiver, host="hooks.lab"), b"{}", {})
    with pytest.raises(Undelivered, match="has no address that is allowed here"):
        Poster(listed(receiver), late, most_seconds=0.0).post(to(receiver, host="hooks.lab"), b"{}", {})
    answered.set()
    assert receiver.received == []


def test_of_several_addresses_only_the_good_ones_are_tried(receiver: Hook) -> None:
    dead = ipaddress.ip_address("127.0.0.77")  # nobody listens there
    allowance = Allowance.of("public", f"{receiver.authority} 127.0.0.77:{receiver.port}")
    Poster(allowance, lambda *_: [METADATA, dead, LOOPBACK]).post(to(receiver, host="hooks.lab"), b"{}", {})
    assert len(receiver.received) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    with hook() as inner, hook((status, {"Location": f"http://{inner.authority}/"})) as outer:
        allowance = Allowance.of("public", f"{outer.authority} {inner.authority}")
        with pytest.raises(Undelivered, match=f"answered {status} .redirects are not followed") as failed:
            Poster(allowance).post(to(outer), b"{}", {})
        assert not failed.value.again
        assert len(outer.received) == 1
        assert inner.received == []


@pytest.mark.parametrize(("status", "again"), [(400, False), (404, False), (429, True), (500, True), (503, True)])
def test_a_refusal_tells_its_status_and_nothing_else(status: int, again: bool) -> None:
    with hook((status, {"X-Secret": "of the inner service"})) as server:
        with pytest.raises(Undelivered) as failed:
            Poster(listed(server)).post(to(server), b"{}", {})
        assert (str(failed.value), failed.value.again) == (f"it answered {status}", again)


def test_nobody_there_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(Undelivered, match="refused the connection"):
        Poster(Allowance.of("public", f"127.0.0.1:{port}")).post(Webhook(False, "127.0.0.1", port, "/"), b"{}", {})


class _Drips(threading.Thread):
    """Answers one byte at a time and never comes to the end of the first line; or with ``text`` at once."""

    def __init__(self, text: bytes | None) -> None:
        super().__init__(daemon=True)
        self.listener, self.text = socket.create_server(("127.0.0.1", 0)), text
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self) -> None:
        connection, _ = self.listener.accept()
        with connection, self.listener:
            connection.recv(65536)
            try:
                while self.text is None:
                    connection.sendall(b"H")
                    threading.Event().wait(0.02)  # the drip itself
                connection.sendall(self.text or b"")
            except OSError:
                return  # the sender has had enough


def test_a_receiver_that_drips_is_left_in_time() -> None:
    drips = _Drips(None)
    poster = Poster(Allowance.of("public", f"127.0.0.1:{drips.port}"), most_seconds=0.3)
    with pytest.raises(Undelivered, match="did not answer in time"):
        poster.post(Webhook(False, "127.0.0.1", drips.port, "/"), b"{}", {})
    drips.join(10)
    assert not drips.is_alive(), "the connection was closed"


@pytest.mark.parametrize("text", [b"", b"SSH-2.0-OpenSSH_9\r\n", b"+PONG\r\n", b"HTTP/1.1 2x0\r\n", b"x" * 100_000])
def test_what_is_no_http_is_not_shown(text: bytes) -> None:
    odd = _Drips(text)
    with pytest.raises(Undelivered, match=r"did not answer with HTTP|connection failed") as failed:
        Poster(Allowance.of("public", f"127.0.0.1:{odd.port}")).post(
            Webhook(False, "127.0.0.1", odd.port, "/"), b"{}", {}
        )
    assert "SSH" not in str(failed.value)


def _certificate(folder: Path, host: str) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return file


def test_a_certificate_is_checked_against_the_name_though_an_address_is_connected_to(tmp_path: Path) -> None:
    file = _certificate(tmp_path, "hooks.lab")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(file)
    with hook(tls=tls) as server:
        trusting = ssl.create_default_context(cafile=str(file))
        good = Poster(listed(server), lambda *_: [LOOPBACK], tls=trusting)
        good.post(Webhook(True, "hooks.lab", server.port, "/"), b"{}", {})
        assert len(server.received) == 1
        with pytest.raises(Undelivered, match="its certificate is not good"):
            good.post(Webhook(True, "other.lab", server.port, "/"), b"{}", {})
        with pytest.raises(Undelivered, match="its certificate is not good"):
            Poster(listed(server), lambda *_: [LOOPBACK]).post(Webhook(True, "hooks.lab", server.port, "/"), b"{}", {})
    assert len(server.received) == 1


def test_the_signature_is_what_openssl_makes_of_time_dot_and_body() -> None:
    # printf '1.{}' | openssl dgst -sha256 -hmac key
    made = "1ba6b8171186efc613e8bcc0cbdab2748f24984d7c5a84faa2637afa0e40d224"
    assert signature("key", b"{}", 1) == f"t=1,v1={made}"
