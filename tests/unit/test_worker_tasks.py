"""What Flower is told of a run."""

from types import SimpleNamespace
from uuid import UUID, uuid4

import pytest

from stoker.jobs.lifecycle import Outcome, State
from stoker.messages.app import TASK, make_app
from stoker.workers import tasks
from stoker.workers.flower import Announcements
from stoker.workers.runner import Ended


class FiveSeconds:
    """A runner whose runs take five seconds by the clock of the test."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.now = 0.0

    def run(self, attempt: UUID) -> Ended:
        """Succeed."""
        self.now += 5.0
        return Ended(Outcome.SUCCEEDED, State.SUCCEEDED, f"attempt {attempt}")


def test_the_runtime_that_is_told_again_is_that_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    runner, announcements = FiveSeconds(), Announcements()
    monkeypatch.setattr(tasks, "time", SimpleNamespace(monotonic=lambda: runner.now))
    app = make_app("memory://")
    tasks.register(app, runner, announcements)  # type: ignore[arg-type]  # the clock is what is tested
    attempt = uuid4()
    assert app.tasks[TASK](str(attempt)) == f"attempt {attempt}"
    told: list[dict[str, object]] = []
    announcements.repeat(lambda kind, **fields: told.append({"kind": kind} | fields))
    assert [(one["kind"], one["runtime"]) for one in told] == [("task-succeeded", 5.0)]
