"""What Flower is told of an attempt, and which messages name one."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from stoker.jobs.reads_tasks import TaskView
from stoker.workers.herald import event_of
from stoker.workers.tasks import attempt_of

BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ATTEMPT = "01a2097e-b2e1-71da-aae3-4df9bcad8e1b"
RUNNING = TaskView(
    attempt_id=UUID(ATTEMPT),
    job_number=42,
    ordinal=2,
    name="resnet18",
    owner="ann",
    team="vision",
    worker="one",
    host="box",
    failure=None,
    cancelled_by=None,
    claimed_at=BEGAN,
    ended_at=None,
    move=None,
    reason=None,
)
ENDED = replace(RUNNING, ended_at=BEGAN + timedelta(seconds=5))


def test_an_attempt_that_runs_is_a_task_with_readable_arguments() -> None:
    kind, fields = event_of(RUNNING)
    assert kind == "task-started"
    assert fields == {
        "uuid": ATTEMPT,
        "name": "stoker.run",
        "args": "resnet18 · job 42 · attempt 2",
        "kwargs": "user=ann team=vision",
        "received": BEGAN.timestamp(),
        "started": BEGAN.timestamp(),
    }


@pytest.mark.parametrize(
    ("changed", "kind", "words"),
    [
        ({"move": "succeed", "reason": "accuracy 55.10%"}, "succeeded", {"result": "accuracy 55.10%"}),
        ({"move": "cancel", "cancelled_by": "ann"}, "revoked", {"exception": "cancelled by ann"}),
        ({"move": "requeue", "reason": "preempted"}, "retried", {"exception": "queued again: preempted"}),
        (
            {"move": "fail", "failure": {"class": "user_error", "evidence": "exit code 3"}},
            "failed",
            {"exception": "user_error: exit code 3"},
        ),
    ],
)
def test_each_end_is_told_with_its_reason_and_its_runtime(
    changed: dict[str, Any], kind: str, words: dict[str, str]
) -> None:
    found, fields = event_of(replace(ENDED, **changed))
    assert found == f"task-{kind}"
    assert fields["runtime"] == 5.0
    assert fields[kind] == BEGAN.timestamp() + 5
    assert fields.items() >= words.items()


def test_an_attempt_that_never_ran_has_no_runtime() -> None:
    kind, fields = event_of(replace(ENDED, claimed_at=None, move="cancel"))
    assert (kind, fields["terminated"]) == ("task-revoked", False)
    assert not fields.keys() & {"runtime", "started", "received"}


@pytest.mark.parametrize("args", [[], ["x"], [1], [ATTEMPT, ATTEMPT], [[ATTEMPT]]])
def test_a_message_that_names_no_attempt_is_known_by_its_arguments(args: list[object]) -> None:
    assert attempt_of(args, {}) is None
    assert attempt_of([ATTEMPT], {"x": 1}) is None
    assert attempt_of([ATTEMPT], {}) == UUID(ATTEMPT)
