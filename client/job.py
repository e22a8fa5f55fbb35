"""A job as a future: it has a number at once and a result later."""

import os
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, overload
from urllib.parse import quote, urljoin

from stoker.client.checkpoints import Checkpoints
from stoker.client.downloads import fetch_outputs
from stoker.client.errors import JobCancelled, JobFailed
from stoker.client.events import Event, follow
from stoker.client.records import Predictions, Result, Series
from stoker.client.transport import PREFIX, Transport
from stoker.jobs.lifecycle import FINAL, State


class Job:
    """One job on a server. What is read may raise StokerError and its children, ServerUnreachable among them."""

    def __init__(self, transport: Transport, document: dict[str, Any]) -> None:
        self._transport = transport
        self.document = document  # as the API last showed it
        self.number: int = document["number"]
        self._path = f"/jobs/{self.number}"

    def __repr__(self) -> str:
        return f"<Job {self.number} {self.document.get('state')} {self.name!r}>"

    @property
    def name(self) -> str:
        """The name given at the submit."""
        return str(self.document["name"])

    @property
    def state(self) -> str:
        """Where the job is now; asks the server unless the job has ended."""
        if self.document["state"] not in FINAL:
            self.refresh()
        return str(self.document["state"])

    @property
    def ended(self) -> bool:
        """Whether the job had ended when it was last looked at."""
        return self.document["state"] in FINAL

    @property
    def position(self) -> int | None:
        """The place in the queue, 1 the next to start; None for a job that does not wait. Asks the server."""
        return self.why().get("position")

    @property
    def eta(self) -> datetime | None:
        """When the job is expected to end; None where nobody can tell. Asks the server."""
        at = (self.why().get("expected") or {}).get("end_at")
        return datetime.fromisoformat(at) if at else None

    @property
    def url(self) -> str:
        """The address of the job."""
        return urljoin(self._transport.url, str((self.document.get("links") or {}).get("self") or PREFIX + self._path))

    @property
    def flower_url(self) -> str | None:
        """The address of the job's present task in Flower."""
        return (self.document.get("links") or {}).get("flower")

    def refresh(self) -> "Job":
        """Look at the job again."""
        self.document = self._transport.get(self._path)
        return self

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """Yield states, progress, metrics and log lines until the job's end; survives a restart of the server.

        Raises TimeoutError after ``timeout`` seconds.
        """
        for event in follow(self._transport, f"{self._path}/stream", timeout):
            if event.kind == "state":
                self.document = event.data
            yield event

    def wait(self, timeout: float | None = None) -> str:
        """Wait for the end and return the final state.

        Raises TimeoutError after ``timeout`` seconds; the job goes on.
        """
        if self.state not in FINAL:
            for _ in self.events(timeout):
                pass
        return self._final(timeout)

    def _final(self, timeout: float | None) -> str:
        deadline = time.monotonic() + (timeout or 5.0)
        while (state := self.state) not in FINAL and time.monotonic() < deadline:
            time.sleep(0.1)  # the stream has ended: the state is about to be seen
        if state not in FINAL:
            raise TimeoutError(f"job {self.number} is {state}")
        return state

    def result(self, timeout: float | None = None) -> Result:
        """Wait for the end and return the result.

        Raises JobFailed with the class, the evidence (a remote traceback included) and the fix; JobCancelled;
        TimeoutError after ``timeout`` seconds.
        """
        state = self.wait(timeout)
        if state == State.CANCELLED:
            raise JobCancelled(self.number)
        if state == State.FAILED:
            failure = self.document.get("failure") or {}
            told = [str(failure.get(key) or "") for key in ("class", "evidence", "fix")]
            raise JobFailed(self.number, *told)
        return Result.of(self._transport.get(f"{self._path}/result"))

    @overload
    def metrics(self, key: str) -> Series: ...
    @overload
    def metrics(self) -> dict[str, Series]: ...
    def metrics(self, key: str | None = None) -> Series | dict[str, Series]:
        """One metric, or all of them by name; one that was never logged is empty."""
        found = self._transport.get(f"{self._path}/metrics", key=key)["metrics"]
        series = {name: Series(item["steps"], item["values"], item["downsampled"]) for name, item in found.items()}
        return series if key is None else series.get(key, Series([], []))

    def predictions(
        self, *, wrong: bool | None = None, label: str | None = None, predicted: str | None = None
    ) -> Predictions:
        """What was said of the test images; ``label`` and ``predicted`` are class names."""

        def fetch(cursor: str | None) -> dict[str, Any]:
            page: dict[str, Any] = self._transport.get(
                f"{self._path}/predictions", wrong=wrong, label=label, predicted=predicted, cursor=cursor, limit=500
            )
            return page

        return Predictions(fetch)

    @property
    def checkpoints(self) -> Checkpoints:
        """The checkpoints that are kept."""
        return Checkpoints(self.number, self._transport, self.checkpoint_items())

    def checkpoint_items(self) -> list[dict[str, Any]]:
        """The checkpoints as the API lists them."""
        return list(pages(self._transport, f"{self._path}/checkpoints"))

    def output_items(self) -> list[dict[str, Any]]:
        """The files that the job left in its output folder: path, bytes, sha256, attempt."""
        return list(pages(self._transport, f"{self._path}/outputs", limit=500))

    def pull(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write the files that the job left below a folder; returns their paths.

        Raises InvalidInput: a file would be written through a link; DataDamaged.
        """
        return fetch_outputs(self._transport, self.number, self.output_items(), Path(folder))

    def usage(self) -> dict[str, Any]:
        """What it asked for and what it used, and what the same code and command used before."""
        answer: dict[str, Any] = self._transport.get(f"{self._path}/usage")
        return answer

    def logs(self, *, tail: int | None = None) -> Iterator[str]:
        """Yield what the job printed, in pieces as they were stored; only the last ``tail`` lines if given."""
        return (item["text"] for item in self.log_items(tail=tail))

    def log_items(self, *, after: int | None = None, tail: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield the pieces with id, attempt and time; those after an id, or those of the last lines."""
        path = f"{self._path}/logs"
        if tail is not None:
            yield from self._transport.get(path, tail=tail)["items"]
            return
        while items := self._transport.get(path, after=after)["items"]:
            yield from items
            after = items[-1]["id"]

    def why(self) -> dict[str, Any]:
        """Return what the job waits for: code, sentence, position, ahead, further, expected, where, helps.

        For a job that does not wait the code is its state.
        """
        answer: dict[str, Any] = self._transport.get(f"{self._path}/why")
        return answer

    def history(self) -> Iterator[dict[str, Any]]:
        """Yield each change of state: time, actor, reason, attempt."""
        return pages(self._transport, f"{self._path}/events")

    def attempts(self) -> Iterator[dict[str, Any]]:
        """Yield the tries at the job, with worker, device and outcome."""
        return pages(self._transport, f"{self._path}/attempts")

    def cancel(self) -> "Job":
        """Ask that the job be stopped; asking twice is no error. Raises AlreadyFinal."""
        return self._steer("cancel")

    def hold(self) -> "Job":
        """Keep a waiting job from starting. A Conflict while it runs."""
        return self._steer("hold")

    def release(self) -> "Job":
        """Let a held job take its turn again."""
        return self._steer("release")

    def preempt(self) -> "Job":
        """Ask a running job to make room; it goes on later from where it stood. A Conflict when it does not run."""
        self.document = self._transport.post(f"{self._path}/preempt")  # not repeated: it may run again by then
        return self

    def retry(self, origin: str = "latest") -> "Job":
        """Queue a failed or cancelled job again, from its ``latest`` or ``best`` checkpoint or from ``scratch``."""
        self.document = self._transport.post(f"{self._path}/retry?from={quote(origin, safe='')}")
        return self

    def first(self) -> "Job":
        """Put a waiting job before the others of its owner, within its priority. A Conflict once it runs."""
        return self._steer("first")

    def priority(self, level: str) -> "Job":
        """Give the job another priority: low, normal, high, urgent (one of a team at a time, else a Conflict)."""
        return self.change(priority=level)

    def change(self, **fields: Any) -> "Job":
        """Give the job another ``priority``, ``name`` or ``tags``."""
        self.document = self._transport.send("PATCH", self._path, fields)
        return self

    def _steer(self, verb: str) -> "Job":
        self.document = self._transport.ask(f"{self._path}/{verb}")
        return self


def pages(transport: Transport, path: str, **params: Any) -> Iterator[dict[str, Any]]:
    """Yield the items of a list, fetching page after page."""
    cursor = None
    while True:
        page = transport.get(path, **params, cursor=cursor)
        yield from page["items"]
        cursor = page.get("next")
        if cursor is None:
            return
