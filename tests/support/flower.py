"""Flower itself, started as ``stoker up`` starts it, and asked over HTTP as a team asks it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from stoker.settings import Settings
from stoker.stack.ports import choose_port
from stoker.stack.services import Program, flower
from tests.support.waiting import wait_for

AUTH = ("team", "a password")
START_SECONDS = 60.0
SECONDS = 30.0


@dataclass
class Flower:
    """One Flower; ``home`` holds what it remembers."""

    home: Path
    broker_url: str

    def __post_init__(self) -> None:
        """Choose a port, and start."""
        port = choose_port("STOKER_FLOWER_PORT", "127.0.0.1", 0, 0)
        settings = Settings(
            home=self.home, broker_url=self.broker_url, flower_port=port, flower_basic_auth=":".join(AUTH)
        )
        self.program: Program = flower(settings)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", auth=AUTH, timeout=10)
        self.start()

    def start(self) -> None:
        """Start, and wait until it answers."""
        self.program.launch()
        self.program.child.wait_ready(self.program.ready, START_SECONDS)

    def stop(self) -> None:
        """Stop orderly."""
        self.program.stop(10, lambda: False)

    def close(self) -> None:
        """Stop for good."""
        self.stop()
        self.http.close()

    def task(self, attempt: object) -> dict[str, Any]:
        """What it says of a task; nothing if it does not know it."""
        answer = self.http.get(f"/api/task/info/{attempt}")
        assert answer.status_code in {200, 404}
        return dict(answer.json()) if answer.status_code == 200 else {}

    def shows(self, attempt: object, state: str) -> dict[str, Any]:
        """Wait until a task has a state; returns what else it says."""

        def found() -> dict[str, Any]:
            task = self.task(attempt)
            return task if task.get("state") == state else {}

        try:
            return wait_for(found, SECONDS, state)
        except AssertionError as error:
            said = self.program.child.log.read_text()[-3000:]
            raise AssertionError(f"{error}; Flower shows {self.task(attempt) or 'nothing'}; it said:\n{said}") from None

    def ask(self, path: str, **parameters: str) -> httpx.Response:
        """Press a button."""
        return self.http.post(path, params=parameters)

    def knows(self, worker: str) -> str:
        """Wait until it knows a worker, which it looks for only when told to; returns the worker's whole name."""

        def found() -> list[str]:
            workers = self.http.get("/api/workers", params={"refresh": "1"}, timeout=30).json()
            return [name for name in workers if name.startswith(f"{worker}@")]

        return wait_for(found, SECONDS, f"Flower to know worker {worker}")[0]
