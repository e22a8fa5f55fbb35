"""How workers end, and what becomes of their jobs."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import make_url

from stoker.jobs.lifecycle import Outcome, State
from stoker.jobs.steering import preempt
from stoker.stack.postgres import Postgres
from stoker.workers import processes
from tests.support.waiting import wait_for
from tests.support.workers import Stage, is_gone, stage, state_letter, title_of, tree


@pytest.fixture(scope="module")
def empty(postgres: Postgres, template_database: str) -> Iterator[Stage]:
    """A stage; each test brings its own workers, and ends them."""
    with stage(postgres, template_database) as made:
        yield made


def end(worker: subprocess.Popen[bytes]) -> int:
    """Stop a worker as an administrator does; its exit code."""
    worker.send_signal(signal.SIGTERM)
    return worker.wait(60)


def test_sigterm_hands_a_job_back_with_its_checkpoint(empty: Stage) -> None:
    first = empty.started("first")
    number = empty.odd("obedient")
    empty.wait_progress(number)
    assert end(first) == 0
    (attempt,) = empty.attempts(number)
    assert (attempt.outcome, empty.job(number).state) == (Outcome.PREEMPTED, State.QUEUED)
    assert empty.worker_states()["first"] == "stopped"
    (checkpoint,) = empty.checkpoints(number)
    second = empty.started("second")
    assert empty.wait_final(number).state == State.SUCCEEDED
    assert empty.attempts(number)[-1].resumed_step == checkpoint.step > 0
    assert end(second) == 0


def test_a_worker_that_is_killed_leaves_no_orphan_and_its_job_runs_elsewhere(empty: Stage) -> None:
    victim = empty.started("victim")
    number = empty.odd("family")
    wait_for(lambda: empty.notes(number), 60, "the grandchild")
    members = tree(victim.pid)
    assert len(members) >= 4
    rescue = empty.started("rescue")
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    wait_for(lambda: all(map(is_gone, members)), 30, "every descendant to die")
    wait_for(lambda: len(empty.attempts(number)) > 1, 60, "the sweep of the other worker")
    assert empty.attempts(number)[0].outcome == Outcome.LOST
    assert empty.worker_states()["victim"] == "lost"
    empty.wait_progress(number)
    empty.cancel(number)
    assert empty.wait_final(number).state == State.CANCELLED
    assert end(rescue) == 0


def test_a_new_start_recognises_at_once_that_its_predecessor_was_killed(empty: Stage) -> None:
    victim = empty.started("phoenix", lease_seconds=600)
    number = empty.odd("obedient")
    empty.wait_progress(number)
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    (empty.home / "run" / "worker-phoenix.health").unlink()
    again = empty.started("phoenix", lease_seconds=600)  # waits a minute for it at most
    wait_for(lambda: len(empty.attempts(number)) > 1, 60, "the job to run again")
    empty.wait_progress(number)
    empty.cancel(number)
    empty.wait_final(number)
    assert end(again) == 0


def test_a_preempted_job_does_not_hold_up_a_worker_that_stops(empty: Stage) -> None:
    worker = empty.started("hasty", preempt_grace_seconds=600, stop_grace_seconds=0.5)
    number = empty.odd("stubborn")
    empty.wait_progress(number)
    with empty.factory() as session:
        preempt(session, number, actor="ada")
        session.commit()
    assert end(worker) == 0
    assert empty.attempts(number)[0].outcome == Outcome.PREEMPTED
    empty.cancel(number)


def test_a_worker_stops_while_the_database_is_away_and_its_lease_runs_out(empty: Stage, postgres: Postgres) -> None:
    worker = empty.started("cut-off", stop_grace_seconds=0.5)
    number = empty.odd("stubborn")
    empty.wait_progress(number)
    with shut(postgres, empty):
        assert end(worker) == 0
    rescue = empty.started("rescuer")
    wait_for(lambda: len(empty.attempts(number)) > 1, 60, "the sweep of the other worker")
    assert empty.attempts(number)[0].outcome == Outcome.LOST
    empty.cancel(number)
    assert empty.wait_final(number, 60).state == State.CANCELLED
    assert end(rescue) == 0


@contextmanager
def shut(postgres: Postgres, stage: Stage) -> Iterator[None]:
    """Let nobody into the stage's database, and throw out who is there."""
    name = make_url(stage.url).database
    with postgres.connect() as connection:
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        try:
            yield
        finally:
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
            stage.engine.dispose()  # of connections that were thrown out


def test_a_celery_that_ends_by_itself_is_an_exit_code_and_a_line(empty: Stage) -> None:
    worker = empty.start("fails", "tests.support.failing_worker")
    assert worker.wait(60) == 1
    assert "stoker worker: Celery ended by itself (exit code 1)" in empty.log("fails")


def test_a_second_worker_of_a_live_name_is_refused_naming_the_holder(empty: Stage) -> None:
    holder = empty.started("taken", lease_seconds=600)
    refused = empty.start("taken", lease_seconds=0.5)  # how long it waits for the holder: this and five seconds
    assert refused.wait(60) == 2
    assert f"worker taken is running already: pid {holder.pid} on " in empty.log("taken")
    assert end(holder) == 0


def test_jobs_of_a_fork_server_that_is_killed_run_again_and_leave_no_orphan(empty: Stage) -> None:
    worker = empty.started("robust")
    numbers = [empty.odd("family") for _ in range(2)]
    for number in numbers:
        wait_for(lambda number=number: empty.notes(number), 60, "the grandchild")  # type: ignore[misc]
    members = tree(worker.pid) - {worker.pid}
    (fork_server,) = processes.children(worker.pid)
    os.kill(fork_server, signal.SIGKILL)
    wait_for(lambda: all(map(is_gone, members)), 60, "every descendant to die")
    for number in numbers:
        wait_for(lambda number=number: len(empty.attempts(number)) > 1, 60, "the second attempt")  # type: ignore[misc]
        first = empty.attempts(number)[0]
        assert first.failure is not None
        assert first.failure["class"] == "worker_lost"
        empty.wait_progress(number)
        empty.cancel(number)
        assert empty.wait_final(number).state == State.CANCELLED
    assert end(worker) == 0


def test_a_frozen_worker_loses_its_job_and_its_trainer_computes_no_more(empty: Stage) -> None:
    frozen = empty.started("frozen")
    number = empty.odd("stubborn")
    empty.wait_progress(number)
    rescue = empty.started("awake")
    os.kill(frozen.pid, signal.SIGSTOP)
    try:
        wait_for(lambda: len(empty.attempts(number)) > 1, 60, "the sweep of the other worker")
        old, new = empty.attempts(number)[:2]
        assert old.outcome == Outcome.LOST
        trainers = {pid for pid in tree(frozen.pid) if title_of(pid) == f"job {number}"}
        assert trainers
        assert {state_letter(pid) for pid in trainers} == {"T"}
    finally:
        os.kill(frozen.pid, signal.SIGCONT)
    wait_for(lambda: all(map(is_gone, trainers)), 60, "the old trainer to die")
    wait_for(lambda: "incarnation_closed" in empty.log("frozen"), 60, "word of it")
    assert empty.attempts(number)[0].progressed_at == old.progressed_at
    wait_for(lambda: empty.log("frozen").count("worker_registered") == 2, 60, "the worker to register anew")
    empty.cancel(number)
    assert empty.wait_final(number).state == State.CANCELLED
    assert new.id == empty.attempts(number)[-1].id
    assert (end(frozen), end(rescue)) == (0, 0)
