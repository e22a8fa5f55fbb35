"""A worker to be attacked: its secrets, its neighbours, its services."""

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import stoker
from stoker.stack.postgres import Postgres
from stoker.stack.redis import Redis

NEIGHBOUR = """
import pathlib, signal, sys
signal.signal(signal.SIGURG, lambda *_: pathlib.Path(sys.argv[1]).touch())
print("ready", flush=True)
input()
"""


@pytest.fixture
def canary() -> str:
    """A secret that the worker has and no job may ever see."""
    return f"stk_canary_{secrets.token_hex(16)}"


@pytest.fixture
def targets(home: Path, postgres: Postgres, redis_server: Redis, canary: str) -> Iterator[dict[str, Any]]:
    """Everything that ``attacks`` aims at, for real; whoever runs the attacks may reach it by its permissions."""
    secret, other, lock = home / "run" / "secret", home / "scratch" / "one" / "file", home / "cache" / "data.lock"
    for path in (secret, other, lock):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o777)
        path.write_text(canary)
        path.chmod(0o666)
    environ = {"PATH": os.environ["PATH"], "STOKER_TOKEN": canary}
    listening = [sys.executable, "-c", NEIGHBOUR, str(home / "heard")]
    neighbour = subprocess.Popen(listening, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ)
    assert neighbour.stdout is not None
    neighbour.stdout.readline()
    listeners = [socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
                 socket.socket(socket.AF_UNIX), socket.create_server(("127.0.0.1", 0))]  # fmt: skip
    abstract = f"stoker-{secrets.token_hex(8)}"
    for one, address in zip(listeners, (str(home / "s"), str(home / "d"), "\0" + abstract), strict=False):
        one.bind(address)
        if not address.startswith("\0"):
            Path(address).chmod(0o777)
    for one in (listeners[0], listeners[2]):
        one.listen()
    yield {
        "worker": os.getpid(),
        "neighbour": neighbour.pid,
        "secret": str(secret),
        "other": str(other),
        "lock": str(lock),
        "code": stoker.__file__,
        "postgres": str(next(Path(postgres.sockets).glob(".s.PGSQL.*[0-9]"))),
        "redis": redis_server.url.partition("@")[2].partition("?")[0],
        "socket": str(home / "s"),
        "datagrams": str(home / "d"),
        "abstract": abstract,
        "port": listeners[3].getsockname()[1],
    }
    for one in listeners:
        one.close()
    neighbour.communicate(b"\n")
    assert neighbour.returncode == 0
    assert not (home / "heard").exists(), "a signal reached the neighbour"
