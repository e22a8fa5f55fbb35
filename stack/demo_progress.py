"""How the demo shows that something moves: bars on a terminal, a few lines elsewhere."""

from collections.abc import Callable

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
    bar, told, phase = Bar(console, "Training"), 0, ""
    try:
        for event in job.events():
            meanwhile()
            if event.kind == "state":
                console.print(f"Job {job.number} is {event.data['state']}")
            elif event.kind == "progress":
                found = event.data
                if found.get("phase") != phase:
                    phase = str(found.get("phase", ""))
                    bar.end()
                    bar = Bar(console, phase or "Training")
                told = say_losses(job, console, told, int(found["epoch"]))
                bar(
                    found["step"], found["steps"], f"epoch {min(found['epoch'] + 1, found['epochs'])}/{found['epochs']}"
                )
    finally:
        bar.end()
    say_losses(job, console, told, None)


def say_losses(job: Job, console: Console, told: int, epochs: int | None) -> int:
    """Print the loss of each epoch that was completed since ``told`` of them; how many are told now.

    Args:
        job: The job.
        console: Where to.
        told: Epochs whose loss was printed.
        epochs: Epochs completed; None: all that there are.
    """
    if epochs is not None and epochs <= told:
        return told
    losses = job.metrics("epoch_loss").values
    for number, loss in enumerate(losses[told:], told + 1):
        console.print(f"Epoch {number}: loss {loss:.3f}")
    return max(told, len(losses))
