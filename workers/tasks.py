"""The one Celery task: a message becomes a run, and the end of the run becomes what Flower shows."""

import time
from typing import Any
from uuid import UUID

from celery import Celery, Task
from celery.exceptions import Ignore

from stoker.errors import StokerError
from stoker.jobs.lifecycle import Outcome, State
from stoker.log import Events
from stoker.messages.app import TASK
from stoker.workers.flower import Announcements, RunRequest
from stoker.workers.runner import Ended, Runner

events = Events(__name__)


class JobFailed(StokerError):
    """Shown by Flower as the reason of a failed task."""

    code = "job_failed"


def register(app: Celery, runner: Runner, announcements: Announcements) -> None:
    """Give the app its one task."""

    @app.task(bind=True, name=TASK, throws=(JobFailed,), Request=RunRequest)
    def run(task: Task, *args: Any, **kwargs: Any) -> str:
        attempt = attempt_of(args, kwargs)
        if attempt is None:
            events.warning("message_dropped", reason="it names no attempt", task=str(task.request.id)[:100])
            raise Ignore
        began = time.monotonic()
        return announce(task, runner.run(attempt), announcements, began)


def attempt_of(args: Any, kwargs: Any) -> UUID | None:
    """The attempt that a message names, if it names one and nothing else."""
    if kwargs or len(args) != 1 or not isinstance(args[0], str):
        return None
    try:
        return UUID(args[0])
    except ValueError:
        return None


def announce(task: Task, ended: Ended, announcements: Announcements, began: float) -> str:
    """Let Flower show the end of a run: return its text, raise JobFailed, or send an event and raise Ignore."""
    name = str(task.request.id)

    def send(kind: str, **fields: Any) -> None:
        fields.pop("uuid", None)  # send_event adds it
        task.send_event(kind, retry=False, **fields)

    if ended.outcome is None:
        raise Ignore
    if ended.state == State.SUCCEEDED:
        announcements.remember("task-succeeded", name, result=repr(ended.text), runtime=time.monotonic() - began)
        return ended.text
    text = f"{ended.failure.klass}: {ended.failure.evidence}"[:2000] if ended.failure else ended.text
    if ended.state == State.CANCELLED or ended.outcome is Outcome.CANCELLED:
        announcements.say(send, "task-revoked", name, terminated=True, signum=15, expired=False)
        raise Ignore
    if ended.state == State.QUEUED:  # it runs again, as another attempt
        announcements.say(send, "task-retried", name, exception=f"queued again: {text}", traceback="")
        raise Ignore
    announcements.remember("task-failed", name, exception=repr(JobFailed(text)), traceback="")
    raise JobFailed(text)
