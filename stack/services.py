"""What a stack starts beside PostgreSQL and Redis: the API, a worker and Flower, each a process of its own."""

import base64
import dataclasses
import json
import signal
import socket
import sys
from collections.abc import Callable
from typing import Protocol

from stoker.settings import PREFIX, Settings
from stoker.stack.ports import fetch
from stoker.stack.process import Child, environment

KEPT = (  # for the programs of ours: where Python, CUDA, proxies and certificates are
    *("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
)
FOR_CLIENTS = {"url", "token"}  # settings that the services do not need and must not see


class Service(Protocol):
    """What the stack starts, asks, watches and stops."""

    child: Child

    def launch(self) -> None:
        """Start the process; does not wait."""

    def ready(self) -> bool:
        """Whether it does its work."""

    def stop(self, grace_seconds: float, hurry: Callable[[], bool]) -> None:
        """End it and clear up after it."""


class Program:
    """One of our own programs."""

    def __init__(self, child: Child, ready: Callable[[], bool]) -> None:
        """Describe it: the process, and how to ask whether it does its work."""
        self.child, self.ready = child, ready

    def launch(self) -> None:
        """Start the process; does not wait."""
        self.child.start()

    def stop(self, grace_seconds: float, hurry: Callable[[], bool]) -> None:
        """End it."""
        self.child.stop(grace_seconds, hurry)


def environ_of(settings: Settings) -> dict[str, str]:
    """The environment of our own programs: these settings, as variables."""
    values: dict[str, str] = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value is not None and field.name not in FOR_CLIENTS:
            values[PREFIX + field.name.upper()] = str(value)
    return environment(KEPT, **values)


def _program(name: str, module: str, settings: Settings, *arguments: str, **extra: str) -> Child:
    return Child(
        name,
        [sys.executable, "-m", module, *arguments],
        log=settings.home / "logs" / f"{name.lower()}.log",
        environ=environ_of(settings) | extra,
        stop_signal=signal.SIGTERM,
        death_signal=signal.SIGKILL,
    )


def api(settings: Settings) -> Program:
    """The API; ready when it reaches the database."""

    def ready() -> bool:
        return fetch(settings.api_host, settings.api_port, "/readyz")[0] == 200

    return Program(_program("API", "stoker.api", settings), ready)


def worker(settings: Settings, token: str) -> Program:
    """One worker; ready when the API lists it."""
    name = settings.worker_name or socket.gethostname()

    def ready() -> bool:
        status, body = fetch(
            settings.api_host, settings.api_port, "/api/v1/workers", {"Authorization": f"Bearer {token}"}
        )
        return status == 200 and any(found["name"] == name and found["state"] == "live" for found in workers_in(body))

    return Program(_program("Worker", "stoker.workers", settings), ready)


def workers_in(body: bytes) -> list[dict[str, object]]:
    """The workers of an answer of ``GET /api/v1/workers``."""
    found: list[dict[str, object]] = json.loads(body)["items"]
    return found


def flower(settings: Settings) -> Program:
    """Flower on the loopback address, behind a password; it remembers tasks across restarts."""
    auth = settings.flower_basic_auth or ""
    header = {"Authorization": "Basic " + base64.b64encode(auth.encode()).decode()}

    def ready() -> bool:
        return fetch("127.0.0.1", settings.flower_port, "/api/workers", header)[0] == 200

    options = ["--address=127.0.0.1", f"--port={settings.flower_port}", "--persistent=True"]
    options += [f"--db={settings.home / 'flower.db'}", "--state_save_interval=60000"]
    child = _program(
        "Flower",
        "celery",
        settings,
        *("-A", "stoker.messages.flower", "flower", *options),
        FLOWER_BASIC_AUTH=auth,  # by the environment: a command line can be read by everybody
    )
    return Program(child, ready)
