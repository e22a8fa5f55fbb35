"""The one Celery task: a message becomes a run. What Flower shows of its end is told by the herald, from the table."""

from typing import Any
from uuid import UUID

from celery import Celery, Task
from celery.exceptions import Ignore

from stoker.errors import StokerError
from stoker.log import Events
from stoker.messages.app import TASK
from stoker.workers.flower import RunRequest
from stoker.workers.herald import Herald
from stoker.workers.runner import Runner

events = Events(__name__)


class NoAttempt(StokerError):
    """Shown by Flower of a task that somebody else has sent."""

    code = "no_attempt"


def register(app: Celery, runner: Runner, herald: Herald) -> None:
    """Give the app its one task."""

    @app.task(bind=True, name=TASK, throws=(NoAttempt,), Request=RunRequest)
    def run(task: Task, *args: Any, **kwargs: Any) -> None:
        attempt = attempt_of(args, kwargs)
        if attempt is None:
            events.warning("message_dropped", reason="it names no attempt", task=str(task.request.id)[:100])
            raise NoAttempt("it names no attempt at a job of Stoker")
        runner.run(attempt)
        herald.tell(attempt)
        raise Ignore


def attempt_of(args: Any, kwargs: Any) -> UUID | None:
    """The attempt that a message names, if it names one and nothing else."""
    if kwargs or len(args) != 1 or not isinstance(args[0], str):
        return None
    try:
        return UUID(args[0])
    except ValueError:
        return None
