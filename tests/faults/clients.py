"""Users: they submit jobs over HTTP until they are accepted, whatever happens, and keep the queue from running dry."""

import random
import threading
import time
from typing import Any

import httpx
from sqlalchemy import func, or_, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from stoker.jobs.lifecycle import FINAL
from stoker.jobs.models import Job
from tests.faults.history import History
from tests.faults.recipes import RECIPES, spec

TIMEOUT_SECONDS = 8.0
TWICE = 0.1  # share of the submits that are repeated although they were answered
ACCEPTED = {200, 201}


class Api:
    """The HTTP interface behind several addresses, tried in turns."""

    def __init__(self, urls: list[str], token: str, history: History, seed: int) -> None:
        """Speak to these addresses; ``seed`` decides with which a request begins."""
        self._urls, self._history, self._dice = urls, history, random.Random(seed)
        self._http = httpx.Client(headers={"Authorization": f"Bearer {token}"}, timeout=TIMEOUT_SECONDS)

    def post(self, what: str, path: str, **options: object) -> tuple[httpx.Response | None, float]:
        """Ask once; the answer, None if there was none, and its milliseconds."""
        url = self._dice.choice(self._urls)
        began = time.monotonic()
        try:
            answer = self._http.post(f"{url}/api/v1{path}", **options)  # type: ignore[arg-type]
        except httpx.TransportError as error:
            self._history.note("answer", what=what, status=0, ms=_since(began), error=type(error).__name__)
            return None, _since(began)
        self._history.note("answer", what=what, status=answer.status_code, ms=_since(began))
        return answer, _since(began)

    def submit(self, key: str, recipe: str, stop: threading.Event, body: dict[str, Any] | None = None) -> int | None:
        """Ask for a job of a recipe, or for what ``body`` describes, until it is accepted; its number."""
        self._history.note("submit", key=key, recipe=recipe)
        while not stop.is_set():
            answer, took = self.post("submit", "/jobs", json=body or spec(recipe), headers={"Idempotency-Key": key})
            if answer is not None and answer.status_code in ACCEPTED:
                number = int(answer.json()["number"])
                self._history.note("ack", key=key, number=number, status=answer.status_code, ms=took)
                return number
            if answer is not None and answer.status_code < 500:
                self._history.note("refused", key=key, status=answer.status_code, text=answer.text[:300])
                return None
            time.sleep(0.1)
        return None

    def close(self) -> None:
        """Close its connections."""
        self._http.close()


def _since(began: float) -> float:
    return round(1000 * (time.monotonic() - began), 2)


class Clients:
    """Threads that submit at least ``jobs`` jobs, and more while fewer than ``backlog`` could run."""

    def __init__(
        self, urls: list[str], token: str, sessions: sessionmaker[Session], history: History,
        *, seed: int, jobs: int, backlog: int, threads: int = 2, mark: str = "job",
    ) -> None:  # fmt: skip
        self._sessions, self._history, self._seed = sessions, history, seed
        self._least, self._backlog, self._mark = jobs, backlog, mark
        self._count = 0
        self._lock = threading.Lock()
        self._enough, self._stop = threading.Event(), threading.Event()
        self._threads = [
            threading.Thread(
                target=self._work, args=(Api(urls, token, history, seed + number), seed + number), daemon=True
            )
            for number in range(threads)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Say that no more than the least number is needed; the threads end once these are accepted."""
        self._enough.set()

    @property
    def busy(self) -> bool:
        """Whether one of them still submits."""
        return any(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """End at once."""
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * TIMEOUT_SECONDS)

    def _work(self, api: Api, seed: int) -> None:
        dice = random.Random(seed)
        while not self._stop.is_set() and not (self._enough.is_set() and self._count >= self._least):
            if self._able() >= self._backlog:
                self._stop.wait(0.05)
                continue
            with self._lock:
                number = self._count
                self._count += 1
            key, recipe = f"{self._mark}-{self._seed}-{number}", RECIPES[number % len(RECIPES)]
            if api.submit(key, recipe, self._stop) is not None and dice.random() < TWICE:
                api.submit(key, recipe, self._stop)
        api.close()

    def _able(self) -> int:
        try:
            with self._sessions() as session:
                able = or_(Job.not_before.is_(None), Job.not_before < func.now())
                return session.scalar(select(func.count()).where(Job.state.not_in(FINAL), able)) or 0
        except SQLAlchemyError:
            return 0  # the database is away: ask for more all the same
