"""docker/certificates.sh: one authority, and under it a certificate for each service. Root's part is a stand-in."""

import os
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography import x509

ROOT = Path(__file__).parents[2]
SCRIPTS = ("certificates.sh", "checks.sh", "secrets.sh")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder of an installation, and on PATH an ``id`` that says root and a ``chown`` that does nothing."""
    for folder in ("docker", "bin"):
        (tmp_path / folder).mkdir()
    for script in SCRIPTS:
        shutil.copy(ROOT / "docker" / script, tmp_path / "docker")
    for program, text in (("id", "echo 0"), ("chown", "exit 0")):
        (tmp_path / "bin" / program).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / program).chmod(0o755)
    return tmp_path


def _make(home: Path, *names: str) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"PATH": f"{home / 'bin'}:{os.environ['PATH']}"}
    command = ["sh", str(home / "docker/certificates.sh"), *names]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=30)


def _certificate(home: Path, file: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((home / "secrets" / file).read_bytes())


def test_each_service_gets_a_certificate_for_all_names_and_its_own(home: Path) -> None:
    done = _make(home, "stoker.example.org", "n1.r2.c3.d4", "192.0.2.10", "2001:db8::1")
    assert done.returncode == 0, done.stderr
    authority = _certificate(home, "ca_crt")
    for service, file in (("postgres", "postgres_crt"), ("redis", "redis_crt"), ("gateway", "gateway_pem")):
        made = _certificate(home, file)
        made.verify_directly_issued_by(authority)
        names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == [service, "stoker.example.org", "n1.r2.c3.d4"]
        assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.10", "2001:db8::1"]
    modes = {path.name: path.stat().st_mode & 0o777 for path in (home / "secrets").iterdir()}
    public = {name for name, mode in modes.items() if mode & 0o077}
    assert public == {"ca_crt", "postgres_crt", "redis_crt"}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(home / "secrets/gateway_pem")  # as HAProxy reads it: raises unless the key is its own
    context.load_cert_chain(home / "secrets/redis_crt", home / "secrets/redis_key")


def test_a_second_run_renews_the_certificates_under_the_same_authority(home: Path) -> None:
    _make(home, "old.example.org")
    authority, before = _certificate(home, "ca_crt"), _certificate(home, "postgres_crt")
    password = (home / "secrets/postgres_password").read_text()
    assert _make(home, "new.example.org").returncode == 0
    assert _certificate(home, "ca_crt") == authority
    after = _certificate(home, "postgres_crt")
    after.verify_directly_issued_by(authority)
    assert after.serial_number != before.serial_number
    assert (home / "secrets/postgres_password").read_text() == password


def test_without_the_authoritys_key_nothing_is_renewed(home: Path) -> None:
    _make(home, "stoker.example.org")
    (home / "secrets/ca_key").rename(home / "ca_key")
    before = _certificate(home, "redis_crt")
    done = _make(home, "stoker.example.org")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "secrets/ca_key is not here" in done.stderr
    assert _certificate(home, "redis_crt") == before


@pytest.mark.parametrize("name", ["https://stoker.example.org", "host:443/x", "a b", ""])
def test_what_is_no_host_is_refused_before_anything_is_made(home: Path, name: str) -> None:
    done = _make(home, "good.example.org", name)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "is no name and no address of a host" in done.stderr
    assert not (home / "secrets").exists()
