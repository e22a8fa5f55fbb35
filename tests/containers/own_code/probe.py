"""Own code for the checks: hands in what it could reach of the container. Confined: nothing of this; otherwise all."""

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import stoker


def _connect(*address: str | int) -> None:
    socket.create_connection((str(address[0]), int(address[1])), 3)


TRIED: dict[str, Callable[[], object]] = {
    "a secret": lambda: Path("/run/secrets/database_url").read_bytes(),
    "the environment of process 1": lambda: Path("/proc/1/environ").read_bytes(),
    "the worker's home": lambda: os.listdir("/var/lib/stoker"),  # noqa: PTH208 - the call itself is what is tried
    "any socket": lambda: socket.socket().close(),
    "PostgreSQL": lambda: _connect("postgres", 5432),
    "Redis": lambda: _connect("redis", 6379),
    "a signal to process 1": lambda: os.kill(1, 0),
    "another's /tmp": lambda: Path("/tmp/left-by-a-job").write_text("here"),
}


def _succeeds(name: str, attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError as error:
        sys.stdout.write(f"{name} refused: {error}\n")
        return False
    return True


reached = [name for name, attempt in TRIED.items() if _succeeds(name, attempt)]
Path(os.environ["STOKER_OUTPUT"], "reached.txt").write_text("\n".join(reached))
stoker.current_run().result(accuracy=float(not reached), tried=list(TRIED), user=os.getuid())
