"""Following a job: a bar for a terminal, lines for a log file, JSON for a program; the end decides the exit code."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, Self

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from stoker.client.errors import JobFailed
from stoker.client.events import Event
from stoker.client.exits import INTERRUPTED, fate
from stoker.client.job import Job
from stoker.client.screen import console, print_json, safe, safe_lines, say
from stoker.client.summary import print_result
from stoker.client.use import use_sentence
from stoker.errors import NotFound, StokerError

OWN = frozenset({"script", "notebook"})
Show = Callable[[Event], None]


def follow_to_the_end(job: Job, *, json_wanted: bool, timeout: float | None = None) -> NoReturn:
    """Show progress until the end, then the result, and leave with the job's fate.

    Raises TimeoutError; click's Exit with the code otherwise.
    """
    with detached_by_interrupt(job):
        with _progress(job, json_wanted) as show:
            for event in job.events(timeout):
                show(event)
        state = job.wait(timeout)
    _tell(job, state, json_wanted=json_wanted, events=True)


def wait_for_the_end(job: Job, *, json_wanted: bool, timeout: float | None = None) -> NoReturn:
    """Wait in silence, then show the result, and leave with the job's fate."""
    with detached_by_interrupt(job):
        state = job.wait(timeout)
    _tell(job, state, json_wanted=json_wanted, events=False)


def _tell(job: Job, state: str, *, json_wanted: bool, events: bool) -> NoReturn:
    if json_wanted and not events:
        print_json(job.document)
    elif not json_wanted:
        try:
            tell_end(job, state)
        except StokerError as error:  # the fate is known, and is the exit code
            say(f"job {job.number} is {state}; what came out cannot be shown now: {error}")
    raise click.exceptions.Exit(fate(state))


def tell_end(job: Job, state: str) -> None:
    """Write the result to stdout, or what went wrong to stderr."""
    if state == "succeeded":
        _tell_success(job)
    elif state == "failed":
        failure: dict[str, Any] = job.document.get("failure") or {}
        told = JobFailed(job.number, *(str(failure.get(key) or "") for key in ("class", "evidence", "fix")))
        click.echo(safe_lines(str(told)), err=True)
    else:
        say(f"job {job.number} is {state}")


def _tell_success(job: Job) -> None:
    """Write the result; of own code also what it left and what it used, and that it may have no result."""
    if job.document.get("kind") not in OWN:
        print_result(job.result())
        return
    try:
        print_result(job.result())
    except NotFound:
        say(f"job {job.number} succeeded; it told no result")
    if outputs := job.output_items():
        say(f"{len(outputs)} output files: `stoker pull {job.number}` fetches them")
    if words := use_sentence(job.usage()):
        say(words)


@contextmanager
def detached_by_interrupt(job: Job) -> Iterator[None]:
    """Ctrl-C leaves the job alone and says how to come back."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"\ndetached: job {job.number} goes on; `stoker watch {job.number}` comes back")
        raise click.exceptions.Exit(INTERRUPTED) from None


@contextmanager
def _progress(job: Job, json_wanted: bool) -> Iterator[Show]:
    if json_wanted:
        yield lambda event: print_json({"event": event.kind, **event.data})
        return
    screen = console(messages=True)
    if not screen.is_terminal:
        yield _Lines(job).show
        return
    with _Bar(job, screen) as bar:
        yield bar.show


class _Told:
    """What has been heard of a job so far, as a few words."""

    def __init__(self, job: Job) -> None:
        self.state = str(job.document["state"])
        self.worker = job.document.get("worker")
        self.progress: dict[str, Any] = job.document.get("progress") or {}
        self.loss: float | None = None

    def hear(self, event: Event) -> None:
        """Take one event in."""
        if event.kind in {"state", "end"}:
            self.state = str(event.data.get("state", self.state))
            self.worker = event.data.get("worker", self.worker)
        elif event.kind == "progress":
            self.progress = event.data
        elif event.kind == "metric" and event.data.get("key") == "loss" and event.data.get("values"):
            self.loss = event.data["values"][-1]

    @property
    def words(self) -> str:
        """Such as ``running on a  epoch 1/2  loss 1.312``."""
        words = [self.state + (f" on {safe(self.worker)}" if self.worker and self.state == "running" else "")]
        if self.progress.get("epochs"):
            words.append(f"epoch {self.progress.get('epoch') or 0}/{self.progress['epochs']}")
        if self.loss is not None:
            words.append(f"loss {self.loss:.3f}")
        return "  ".join(words)


class _Lines(_Told):
    """A line whenever the state or the epoch is another one."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._number, self._last = job.number, (None, None)

    def show(self, event: Event) -> None:
        """Take one event in and write a line if there is news."""
        self.hear(event)
        news: Any = (self.state, self.progress.get("epoch"))
        if news != self._last:
            self._last = news
            say(f"job {self._number} {self.words}")


class _Bar(_Told):
    """A bar on a terminal."""

    def __init__(self, job: Job, screen: Console) -> None:
        super().__init__(job)
        columns = (
            TextColumn("{task.fields[title]}", markup=False),
            BarColumn(24),
            TextColumn("{task.percentage:3.0f} %"),
        )
        self._bar = Progress(*columns, TextColumn("{task.fields[words]}", markup=False), console=screen)
        title = safe(f"{job.number} {job.name}")[:40]
        self._task = self._bar.add_task("", total=1.0, title=title, words=self.words)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, event: Event) -> None:
        """Take one event in and move the bar."""
        self.hear(event)
        done = 1.0 if self.state == "succeeded" else self.progress.get("fraction") or 0.0
        self._bar.update(self._task, completed=done, words=self.words)
