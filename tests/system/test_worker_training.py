"""A worker as it is shipped, with torch: real trainings, from submit to result."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.jobs.lifecycle import Outcome, State
from stoker.jobs.models import Predictions, Result
from stoker.jobs.predictions import unpack
from stoker.stack.postgres import Postgres
from tests.support.waiting import wait_for
from tests.support.workers import REAL, Stage, stage

GOOD = {"dataset": "digits", "epochs": 12, "batch_size": 16, "optimizer": {"lr": 0.02}}
LONG = {"dataset": "digits", "epochs": 2000}
ROOM = {"cpus": 1, "memory": 5 * 10**8}  # a real training holds some 100 MB of its own


@pytest.fixture(scope="module")
def real(postgres: Postgres, template_database: str) -> Iterator[Stage]:
    """A stage with one real worker."""
    with stage(postgres, template_database) as made:
        made.started("real", REAL)
        yield made


def test_digits_are_learned_and_the_stored_predictions_count_the_same(real: Stage) -> None:
    number = real.submit(train=GOOD, resources=ROOM)
    job = real.wait_final(number, 60)
    assert (job.state, job.failure) == (State.SUCCEEDED, None)
    result, made = real.found(number, Result), real.found(number, Predictions)
    rows = list(unpack(made.packed))
    assert result.accuracy == sum(label == predicted for label, predicted, _ in rows) / len(rows) >= 0.95
    assert result.document["test_images"] == made.count == len(rows)
    assert made.sprite_id is not None
    checkpoints = real.checkpoints(number)
    assert [one.step for one in checkpoints] == [91 * epoch for epoch in range(1, 13)]
    assert [one.id for one in checkpoints if one.blob_id] == [result.checkpoint_id] == [checkpoints[-1].id]


def test_the_worker_itself_never_loads_torch(real: Stage) -> None:
    mapped = Path(f"/proc/{real.workers[0].pid}/maps").read_text()
    assert "python" in mapped
    assert "torch" not in mapped


def test_two_jobs_of_a_team_share_one_strip_of_test_images(real: Stage) -> None:
    numbers = [real.submit(train={"dataset": "digits", "epochs": 1, "seed": seed}, resources=ROOM) for seed in range(2)]
    for number in numbers:
        assert real.wait_final(number, 60).state == State.SUCCEEDED
    assert len({real.found(number, Predictions).sprite_id for number in numbers}) == 1


def test_a_cancel_ends_a_training_long_before_its_end(real: Stage) -> None:
    number = real.submit(train=LONG, resources=ROOM)
    real.wait_progress(number)
    real.cancel(number)
    assert real.wait_final(number, 30).state == State.CANCELLED


def test_a_stopped_training_goes_on_from_its_checkpoint_on_the_next_start(real: Stage) -> None:
    number = real.submit(train=LONG, resources=ROOM)
    wait_for(lambda: (real.wait_progress(number).progress or {})["step"] > 10, 20, "some steps")
    worker = real.workers[0]
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    assert real.attempts(number)[0].outcome == Outcome.PREEMPTED
    kept = real.checkpoints(number)[-1]
    real.started("real", REAL)
    again = real.wait_progress(number, 30)
    assert again.resumed_step == kept.step > 10
    assert again.progress is not None
    assert again.progress["step"] >= kept.step
    real.cancel(number)
    assert real.wait_final(number).state == State.CANCELLED


def test_where_forked_children_cannot_train_each_trainer_is_a_fresh_process(real: Stage) -> None:
    real.workers[-1].send_signal(signal.SIGTERM)
    assert real.workers[-1].wait(60) == 0
    real.started("fresh", "tests.support.unforkable_worker")
    assert "trainers_start_fresh" in real.log("fresh")
    own_torch = {"cpus": 1, "memory": 10**9}  # not shared with the fork server: it counts as the job's
    good = real.submit(train={"dataset": "digits", "epochs": 1}, resources=own_torch)
    assert real.wait_final(good, 120).state == State.SUCCEEDED
    long = real.submit(train=LONG, resources=own_torch)
    real.wait_progress(long, 60)
    real.cancel(long)
    assert real.wait_final(long, 30).state == State.CANCELLED
