"""Other hosts: a worker that joins through its own compose file, users, and what is refused without TLS."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.containers.installation import HOST, Installation
from tests.containers.jobs import SECONDS, attempts, live_workers, wait

SMALL_OPTIONS = ("--epochs", "1", "--memory", "200MB", "--cpus", "0.5")
INTRUDER = Path(__file__).parent / "intruder.py"


def joined(stack: Installation, remote: Installation) -> None:
    """A worker of another host joins over TLS, and runs a job that somebody followed through the gateway."""
    bundle = stack.folder / "worker-secrets.tar"
    stack.script("worker-secrets.sh", HOST, str(bundle))
    assert bundle.stat().st_mode & 0o077 == 0, "others may read it"
    with tarfile.open(bundle) as packed:
        packed.extractall(remote.folder, filter="tar")
    with stack.client() as client:
        (local,) = live_workers(client)
        client.steer_worker(local, "drain")
        try:
            remote.script("worker.sh", "--profile", "cpu", seconds=600)
            wait(lambda: set(live_workers(client)) - {local}, "the worker of the other host")
            said = _stoker(stack, "train", "--dataset", "digits", *SMALL_OPTIONS, "--name", "afar", "--follow")
            assert "succeeded" in said
            number = next(iter(client.jobs(state="succeeded", name="afar"))).number
            assert [worker for worker, _, _ in attempts(stack, number)] != [local]
        finally:
            client.steer_worker(local, "resume")
    assert stack.sql("SELECT bool_and(s.ssl) FROM pg_stat_ssl s JOIN pg_stat_activity USING (pid) "
                     "WHERE client_addr IS NOT NULL") == "t"  # fmt: skip


def _stoker(stack: Installation, *arguments: str) -> str:
    """The command line as a user of another host runs it: by HTTPS, with the authority's certificate."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("STOKER_")} | {
        "STOKER_URL": f"https://{HOST}:{stack.tls_port}",
        "STOKER_TOKEN": stack.token,
        "SSL_CERT_FILE": str(stack.folder / "secrets/ca_crt"),
        "NO_PROXY": HOST,
    }
    command = [sys.executable, "-m", "stoker.client.cli", *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == 0, done.stderr[-1000:]
    return done.stdout + done.stderr


def refused_without_tls(stack: Installation, remote: Installation) -> None:
    """From another host nobody gets in without TLS or trusts a stranger's certificate; with both in order one does."""
    container = remote.containers("worker-cpu")[0]
    command = ("docker", "exec", "-i", container, "python", "-", f"https://{HOST}:{stack.tls_port}")
    said = stack.engine.run(*command, text=INTRUDER.read_text()).stdout.splitlines()
    kinds = ("PostgreSQL", "Redis", "API")
    wanted = [f"{kind} {how}" for kind in kinds for how in ("as told: in", "without TLS: out", "other authority: out")]
    assert [line.partition(" (")[0] for line in said] == wanted, said


def bad_certificates(stack: Installation, remote: Installation) -> None:
    """An address that the certificates do not name, a worker without its secrets: exit code 2 and one line."""
    for where, script, arguments, words in (
        (stack, "worker-secrets.sh", ("elsewhere.example", "x.tar"), "the certificates do not name elsewhere.example"),
        (stack, "certificates.sh", ("https://host",), "'https://host' is no name and no address"),
        (remote, "worker.sh", ("--profile", "gpu", "--profile", "cpu"), "secrets/broker_url is missing"),
    ):
        aside = (remote.folder / "secrets").rename(remote.folder / "aside")
        try:
            done = where.script(script, *arguments, check=False)
        finally:
            aside.rename(remote.folder / "secrets")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert words in done.stderr


CHECKS = (joined, refused_without_tls, bad_certificates)
