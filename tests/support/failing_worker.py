"""A worker whose Celery ends by an error of its own: ``python -m tests.support.failing_worker``."""

import sys
from collections.abc import Mapping
from typing import Any

from celery import Celery, bootsteps

from stoker.settings import Settings
from stoker.workers.program import main
from stoker.workers.worker import Worker
from tests.support.odd_worker import COMMAND


class Failing(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery is not typed
    """Fails once the pool is there."""

    requires = ("celery.worker.components:Pool",)

    def start(self, parent: Any) -> None:  # noqa: ARG002 - as bootsteps call it
        """Fail."""
        raise RuntimeError("a step that fails")


class FailingWorker(Worker):
    """A worker with that step."""

    def _celery(self, app: Celery) -> Any:
        app.steps["worker"].add(Failing)
        return super()._celery(app)


def failing(settings: Settings, environ: Mapping[str, str]) -> Worker:
    """Make it."""
    return FailingWorker(settings, environ, COMMAND)


if __name__ == "__main__":
    sys.exit(main(failing))
