"""How the demo shows that something moves: bars on a terminal, a few lines elsewhere."""

from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from stoker.client.job import Job

LINES = 10  # about so many lines of progress where there is no terminal


class Bar:
    """One thing that is done piece by piece; call it with (done, total)."""

    def __init__(self, console: Console, title: str) -> None:
        """Show nothing before the first call."""
        self._console, self._title, self._shown = console, title, -1
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
        self._progress = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
        self._task: TaskID | None = None

    def __call__(self, done: float, total: float, note: str = "") -> None:
        """Show how far it has come."""
        text = f"{self._title} {note}".rstrip()
        if self._console.is_terminal:
            self._move(done, total, text)
        elif total and (now := int(LINES * done / total)) > self._shown:
            self._shown = now
            self._console.print(f"{text}: {100 * done / total:.0f} %")

    def _move(self, done: float, total: float, text: str) -> None:
        if self._task is None:
            self._progress.start()
            self._task = self._progress.add_task(text)
        self._progress.update(self._task, completed=done, total=total or None, description=text)
        if total and done >= total:
            self.end()

    def end(self) -> None:
        """Take it off the screen."""
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._progress.stop()
            self._task = None


def follow(job: Job, console: Console, meanwhile: Callable[[], None]) -> None:
    """Show a job's states, its progress and the loss of each epoch, until it has ended.

    Args:
        job: The job.
        console: Where to.
        meanwhile: Called with every event.
    """
    shown = _Shown(console)
    try:
        for event in job.events():
            meanwhile()
            shown.take(event.kind, event.data)
    finally:
        shown.bar.end()


class _Shown:
    """What has been shown of a job."""

    def __init__(self, console: Console) -> None:
        self.console, self.bar = console, Bar(console, "")
        self.state, self.phase, self.epochs = "queued", "", 0

    def take(self, kind: str, data: dict[str, Any]) -> None:
        """Show one event."""
        if kind == "state" and data["state"] != self.state:
            self.state = str(data["state"])
            where = f" on {data['worker']}" if data.get("worker") and self.state in {"placed", "running"} else ""
            self.console.print(f"Job {data['number']} is {self.state}{where}")
        elif kind == "metric" and data["key"] == "epoch_loss":
            for loss in data["values"]:
                self.epochs += 1
                self.console.print(f"Epoch {self.epochs}: loss {loss:.3f}")
        elif kind == "progress":
            self._move(data)

    def _move(self, data: dict[str, Any]) -> None:
        phase = str(data.get("phase") or "train")
        if phase != self.phase:
            self.bar.end()
            self.phase, self.bar = phase, Bar(self.console, phase.capitalize())
        epoch = f"epoch {min(data['epoch'] + 1, data['epochs'])}/{data['epochs']}" if phase == "train" else ""
        self.bar(data["step"], data["steps"], epoch)
