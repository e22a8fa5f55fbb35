"""What a run reports, against a real database whose answers are lost when it hurts."""

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import exc, select
from sqlalchemy.orm import Session, sessionmaker

from stoker.jobs import records
from stoker.jobs.models import Checkpoint, LogChunk, MetricSegment
from stoker.workers.reporting import Report
from stoker.workers.storing import Storing, worth_storing
from tests.support.worker_parts import Parts, parts_of_a_worker


@pytest.fixture
def parts(database_url: str, home: Path) -> Iterator[Parts]:
    """A worker's parts, registered."""
    with parts_of_a_worker(database_url, home) as made:
        yield made


class Unanswered(Session):
    """A session whose first commit is done, and whose answer is lost."""

    lost = 0

    def commit(self) -> None:
        """Commit, then lose the connection."""
        super().commit()
        if type(self).lost == 0:
            type(self).lost += 1
            raise exc.OperationalError("COMMIT", {}, Exception("server closed the connection unexpectedly"))


def unanswered(parts: Parts) -> sessionmaker[Session]:
    """A factory of sessions, one of whose commits goes unanswered."""
    kind = type("OnceUnanswered", (Unanswered,), {"lost": 0})
    return sessionmaker(parts.queue.engine, class_=kind, expire_on_commit=False)


def points(*steps: int) -> dict[str, Any]:
    """A message with points of the loss."""
    return {"type": "metrics", "key": "loss", "steps": list(steps), "values": [0.5] * len(steps)}


def checkpoint(scratch: Path, step: int = 2, **metrics: float) -> dict[str, Any]:
    """Write a checkpoint, and the message that announces it."""
    content, path = b"weights", f"checkpoint-{step}"
    (scratch / path).write_bytes(content)
    about = {"path": path, "step": step, "epoch": 0, "bytes": len(content), "metrics": metrics}
    return about | {"type": "checkpoint", "sha256": hashlib.sha256(content).hexdigest()}


def test_the_points_before_a_checkpoint_are_stored_before_its_row(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = parts.claim()
    report = parts.report(run)
    stored_before: list[int] = []
    add_checkpoint = records.add_checkpoint

    def watched(*args: Any, **kwargs: Any) -> int:
        stored_before.append(parts.count(MetricSegment))
        return add_checkpoint(*args, **kwargs)

    monkeypatch.setattr(records, "add_checkpoint", watched)
    storing = Storing(parts.queue.factory, run, parts.home, report)
    report.metrics(points(1, 2))
    storing.checkpoint(checkpoint(parts.home))
    storing.finish()
    assert (stored_before, parts.count(Checkpoint), storing.refused) == ([1], 1, [])


def test_checkpoints_that_others_behind_them_would_replace_are_not_stored(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = parts.claim()
    storing = Storing(parts.queue.factory, run, parts.home, parts.report(run))
    begun, go_on = threading.Event(), threading.Event()
    add_checkpoint = records.add_checkpoint

    def slow(*args: Any, **kwargs: Any) -> int:
        begun.set()
        assert go_on.wait(60)
        return add_checkpoint(*args, **kwargs)

    monkeypatch.setattr(records, "add_checkpoint", slow)
    storing.checkpoint(checkpoint(parts.home, 1, validation_accuracy=0.1))
    assert begun.wait(60)
    for step, accuracy in ((2, 0.5), (3, 0.9), (4, 0.9), (5, 0.6)):
        storing.checkpoint(checkpoint(parts.home, step, validation_accuracy=accuracy))
    go_on.set()
    storing.finish()
    with parts.queue.factory() as session:
        assert list(session.scalars(select(Checkpoint.step).order_by(Checkpoint.id))) == [1, 3, 5]
    assert (storing.refused, list(parts.home.glob("checkpoint-*"))) == ([], [])


@pytest.mark.parametrize(
    ("accuracies", "keep_latest", "keep_best", "kept"),
    [
        ((None, None, None), 1, 1, [2]),
        ((None, None, None), 2, 0, [1, 2]),
        ((None, None, None), 9, 0, [0, 1, 2]),
        ((0.5, 0.5, 0.1), 1, 1, [0, 2]),
        ((0.5, None, 0.9), 1, 1, [2]),
        ((0.9, 0.1, 0.8, 0.2), 1, 2, [0, 2, 3]),
    ],
)
def test_what_is_worth_storing_is_what_would_be_kept(
    accuracies: tuple[float | None, ...], keep_latest: int, keep_best: int, kept: list[int]
) -> None:
    announced = [{"step": step, "metrics": {"validation_accuracy": value}} for step, value in enumerate(accuracies)]
    assert [one["step"] for one in worth_storing(announced, keep_latest, keep_best)] == kept


def test_the_cell_that_runs_stays_with_the_progress_that_its_code_reports(parts: Parts) -> None:
    run = parts.claim()
    report = parts.report(run)
    report.cell({"type": "cell", "index": 2, "count": 5, "source": "train()"})
    report.write_all(lambda: True)
    (attempt,) = parts.queue.attempts(parts.number)
    cell = {"index": 2, "count": 5, "source": "train()"}
    assert attempt.progress is not None
    assert (attempt.progress["step"], attempt.progress["steps"], attempt.progress["cell"]) == (1, 5, cell)
    report.progress({"type": "progress", "phase": "train", "epoch": 1, "epochs": 3, "step": 40, "steps": 120})
    report.write_all(lambda: True)
    (attempt,) = parts.queue.attempts(parts.number)
    assert attempt.progress is not None
    assert (attempt.progress["step"], attempt.progress["cell"]) == (40, cell)


def test_what_was_committed_without_an_answer_is_stored_once(parts: Parts) -> None:
    run = parts.claim()
    report = parts.report(run, unanswered(parts))
    report.metrics(points(1, 2))
    report.log("a line\n")
    report.write_all(run.may_wait)
    report.metrics(points(3))
    report.write_all(run.may_wait)
    assert (parts.count(MetricSegment), parts.count(LogChunk)) == (2, 1)
    storing = Storing(unanswered(parts), run, parts.home, report)
    storing.checkpoint(checkpoint(parts.home))
    storing.finish()
    assert parts.count(Checkpoint) == 1


def test_a_batch_that_was_postponed_keeps_its_content_and_later_points_come_after_it(parts: Parts) -> None:
    run = parts.claim()
    report = Report(unanswered(parts), run.id, run.incarnation, 0.0)
    report.metrics(points(1))
    report.write_if_due()  # stored, but nobody said so
    report.metrics(points(2))
    report.write_all(run.may_wait)
    with parts.queue.factory() as session:
        stored = list(session.scalars(select(MetricSegment).order_by(MetricSegment.id)))
    assert [records.unpack_segment(segment)[0] for segment in stored] == [(1,), (2,)]
