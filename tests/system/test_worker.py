"""A real worker process, real PostgreSQL and Redis, and trainers that misbehave."""

import json
import uuid
from collections.abc import Iterator

import pytest

from stoker.jobs.attempts import Outgoing
from stoker.jobs.lifecycle import Outcome, State
from stoker.jobs.models import Predictions, Result
from stoker.messages.app import make_app, send
from stoker.stack.postgres import Postgres
from tests.support.waiting import wait_for
from tests.support.workers import Stage, attempt_id, is_gone, stage

SECRETS = ("STOKER_DATABASE_URL", "STOKER_BROKER_URL", "postgresql", "redis")


@pytest.fixture(scope="module")
def busy(postgres: Postgres, template_database: str) -> Iterator[Stage]:
    """A stage with one worker, shared by the tests of this module that leave it as they found it."""
    with stage(postgres, template_database) as made:
        made.started("one", cancel_grace_seconds=0.5)
        yield made


def test_a_job_ends_with_its_result(busy: Stage) -> None:
    number = busy.odd("succeed")
    job = busy.wait_final(number)
    assert job.state == State.SUCCEEDED
    assert busy.found(number, Result).accuracy == 0.5
    assert busy.found(number, Predictions).classes == ["a", "b"]
    assert busy.printed(number) == "a line in the log\n"
    (attempt,) = busy.attempts(number)
    assert attempt.first_step_at is not None
    assert attempt.machine is not None


def test_every_line_about_a_run_names_its_job_and_attempt(busy: Stage) -> None:
    number = busy.odd("succeed")
    busy.wait_final(number)
    attempt = str(attempt_id(busy, number))

    def told() -> dict[str, tuple[object, object]]:
        lines = [json.loads(line) for line in busy.log("one").splitlines() if attempt in line and line.endswith("}")]
        return {line["event"]: (line.get("job"), line.get("attempt")) for line in lines}

    wait_for(lambda: "attempt_ended" in told(), 20, "the line about its end")
    assert "attempt_claimed" in told()
    assert set(told().values()) == {(number, attempt)}


def test_a_trainer_that_ignores_sigterm_is_cancelled_all_the_same(busy: Stage) -> None:
    number = busy.odd("stubborn")
    busy.wait_progress(number)
    busy.cancel(number)
    assert busy.wait_final(number).state == State.CANCELLED


def test_grandchildren_in_their_own_sessions_die_with_their_job(busy: Stage) -> None:
    number = busy.odd("family")
    (note,) = wait_for(lambda: busy.notes(number), 60, "the grandchild")
    pid = int(note.split()[1])
    assert not is_gone(pid)
    busy.cancel(number)
    busy.wait_final(number)
    assert is_gone(pid)


def test_a_trainer_that_is_killed_is_retried_as_often_as_its_spec_says(busy: Stage) -> None:
    number = busy.odd("killed")
    job = busy.wait_final(number)
    assert job.state == State.FAILED
    assert job.failure is not None
    assert job.failure["class"] == "signal"
    assert "SIGKILL" in job.failure["evidence"]
    assert len(busy.attempts(number)) == 1
    number = busy.odd("killed_once", max_retries=1)
    assert busy.wait_final(number, 60).state == State.SUCCEEDED
    first, second = busy.attempts(number)
    assert (first.outcome, second.outcome) == (Outcome.FAILED, Outcome.SUCCEEDED)
    assert busy.job(number).retries_used == 1


def test_a_result_that_contradicts_its_predictions_is_refused(busy: Stage) -> None:
    number = busy.odd("liar")
    job = busy.wait_final(number)
    assert job.state == State.FAILED
    assert job.failure is not None
    assert "the result says accuracy 1.0; the predictions count 0.5" in job.failure["evidence"]
    assert busy.found(number, Result) is None


def test_hostile_messages_are_dropped_with_a_note_each(busy: Stage) -> None:
    number = busy.odd("hostile")
    assert busy.wait_final(number).state == State.SUCCEEDED
    notes = " ".join(busy.notes(number))
    for reason in ("65536 bytes", "not JSON", "unknown type", "values is missing", "do not rise", "epoch is missing"):
        assert reason in notes
    assert "path is missing or cannot be" in notes
    assert "not those that were announced" in notes
    assert busy.checkpoints(number) == []


def test_a_trainer_sees_nothing_of_the_worker(busy: Stage) -> None:
    number = busy.odd("describe")
    assert busy.wait_final(number).state == State.SUCCEEDED
    seen = json.loads(busy.printed(number))
    text = json.dumps([seen["environment"], seen["exec"]])
    assert not [secret for secret in SECRETS if secret in text]
    assert seen["environment"]["CUDA_VISIBLE_DEVICES"] == ""
    assert seen["environment"]["HOME"] == seen["folder"] == seen["task"]["scratch"]
    assert seen["descriptors"] == [0, 1, 2, 3, 4]  # 4 lists the folder


def test_a_trainer_that_hangs_is_killed_with_its_stacks_kept(busy: Stage) -> None:
    number = busy.odd("silent", stall_timeout="1s")
    job = busy.wait_final(number)
    assert job.failure is not None
    assert job.failure["class"] == "stalled"
    assert "in silent" in busy.printed(number)


def test_a_time_limit_is_kept(busy: Stage) -> None:
    number = busy.odd("stubborn", time_limit="1s")
    job = busy.wait_final(number)
    assert job.failure is not None
    assert job.failure["class"] == "time_limit"


def test_a_flood_of_prints_is_cut_with_a_note_and_its_end_kept(busy: Stage) -> None:
    number = busy.odd("flood")
    assert busy.wait_final(number).state == State.SUCCEEDED
    printed = busy.printed(number)
    assert "bytes left out]" in printed
    assert printed.endswith("the last line\n")
    assert len(printed) < 11_000_000


def test_two_jobs_run_at_once(busy: Stage) -> None:
    numbers = [busy.odd("stubborn") for _ in range(2)]
    for number in numbers:
        busy.wait_progress(number)
    assert {busy.job(number).state for number in numbers} == {State.RUNNING}
    for number in numbers:
        busy.cancel(number)
    assert {busy.wait_final(number).state for number in numbers} == {State.CANCELLED}


def test_ten_copies_of_a_message_are_one_run(busy: Stage) -> None:
    number = busy.odd("stubborn")
    busy.wait_progress(number)
    app = make_app(busy.broker.url)
    copy = Outgoing(attempt_id(busy, number), number, 1, "copy", "ada", "vision", "one")
    for _ in range(10):
        send(copy, app)
    wait_for(lambda: busy.log("one").count(str(copy.attempt_id)) >= 11, 60, "the copies to be dropped")
    busy.cancel(number)
    assert busy.wait_final(number).state == State.CANCELLED
    assert len(busy.attempts(number)) == 1


def test_foreign_and_garbage_messages_are_dropped_and_the_worker_lives(busy: Stage) -> None:
    app = make_app(busy.broker.url)
    foreign = Outgoing(uuid.uuid4(), 1, 1, "foreign", "eve", "evil", "one")
    send(foreign, app)
    for arguments in ([], [1], ["not a uuid"], [str(uuid.uuid4()), "more"], [{"a": [None]}]):
        app.send_task("stoker.run", args=arguments, queue="worker.one")
    app.send_task("os.system", args=["true"], queue="worker.one")
    for data in (b"garbage", b"{}", b"[]", b'{"body": 1}', b"\xff\xfe", b"null"):
        busy.send_raw("one", data)
    app.send_task("stoker.run", args=["x"], queue="worker.one", serializer="json", headers={"id": None})
    number = busy.odd("succeed")
    assert busy.wait_final(number, 30).state == State.SUCCEEDED
    assert str(foreign.attempt_id) in busy.log("one")
