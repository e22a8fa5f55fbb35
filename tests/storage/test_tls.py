"""What is said of a database whose TLS cannot be used, and what is asked of the broker's certificate."""

import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy.exc import OperationalError

from stoker.errors import SettingInvalid
from stoker.jobs.database import connect, refusal
from stoker.messages.app import make_app

STARTUP = (196608).to_bytes(4, "big")  # protocol 3.0; anything else that is asked first is a question about TLS


def certificate(folder: Path, name: str) -> Path:
    """A file with a key, and a certificate for a host that it signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), 1, now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, kind, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    file = folder / f"{name}.pem"
    file.write_bytes(key.private_bytes(pem, kind, plain) + made.public_bytes(pem))
    return file


@contextmanager
def database(last_words: str, tls: Path | None = None) -> Iterator[str]:
    """A server that speaks PostgreSQL's first words and then lets nobody in; gives its URL."""
    told = b"SFATAL\0VFATAL\0C28000\0M" + last_words.encode() + b"\0\0"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if tls is not None:
        context.load_cert_chain(tls)

    class Refusal(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while size := int.from_bytes(self.request.recv(4), "big"):
                if self.request.recv(size - 4)[:4] == STARTUP:
                    self.request.sendall(b"E" + (len(told) + 4).to_bytes(4, "big") + told)
                    return
                self.request.sendall(b"N" if tls is None else b"S")
                if tls is not None:
                    with suppress(OSError), context.wrap_socket(self.request, server_side=True):
                        return  # the client has seen the certificate, and hangs up

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Refusal) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"postgresql+psycopg://stoker:secret@127.0.0.1:{server.server_address[1]}/stoker"
        finally:
            server.shutdown()


def refused(url: str) -> str:
    """What ``refusal`` makes of a try to connect."""
    with pytest.raises(OperationalError) as error:
        connect(url).connect()
    said = refusal(error.value)
    assert isinstance(said, SettingInvalid)
    assert "secret" not in str(said)
    return str(said)


def test_a_database_that_wants_tls_says_what_to_add() -> None:
    with database('no pg_hba.conf entry for host "192.0.2.1", user "stoker", database "stoker", no encryption') as url:
        assert "refuses connections without TLS; add ?sslmode=verify-full&sslrootcert=FILE" in refused(url)


def test_a_database_without_tls_is_named_where_tls_is_wanted(tmp_path: Path) -> None:
    with database("") as url:
        root = certificate(tmp_path, "authority")
        assert "the database speaks no TLS" in refused(f"{url}?sslmode=verify-full&sslrootcert={root}")


def test_a_certificate_that_is_not_to_be_trusted_is_named(tmp_path: Path) -> None:
    own, other = certificate(tmp_path, "localhost"), certificate(tmp_path, "stranger")
    with database("", tls=own) as url:
        wanted = f"{url}?sslmode=verify-full&sslrootcert="
        assert "the database's certificate is not of that authority" in refused(f"{wanted}{other}")
        assert "the database's certificate is for another host" in refused(f"{wanted}{own}")
        assert "the file of sslrootcert cannot be read" in refused(f"{wanted}{tmp_path / 'absent'}")


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("", {"ssl_cert_reqs": ssl.CERT_REQUIRED}),
        ("?ssl_ca_certs=/ca", {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": "/ca"}),
        ("?ssl_cert_reqs=none", {"ssl_cert_reqs": ssl.CERT_NONE}),
    ],
)
def test_a_brokers_certificate_is_asked_for_unless_the_url_says_not_to(query: str, asked: dict[str, object]) -> None:
    app = make_app(f"rediss://stoker:secret@broker.example:6380/0{query}")
    assert app.conf.broker_use_ssl == asked  # which is what Flower reads
    used = app.connection_for_write().ssl
    assert {"ssl_cert_reqs": ssl.CERT_REQUIRED} | used == asked  # and this kombu: left out, redis-py asks for it
    assert make_app("redis://broker.example/0").conf.broker_use_ssl is None


def test_an_unknown_wish_about_the_brokers_certificate_is_named() -> None:
    with pytest.raises(SettingInvalid, match="STOKER_BROKER_URL: ssl_cert_reqs='always' is not known; write required"):
        make_app("rediss://broker.example/0?ssl_cert_reqs=always")
    with pytest.raises(SettingInvalid, match="STOKER_BROKER_URL: is not a URL; write rediss://"):
        make_app("rediss://stoker:secret@broker.example:many/0")
