"""Flower as a team uses it, asked over its own HTTP API: what it shows of jobs, and what its buttons do."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
from flower import urls
from sqlalchemy import select, text

from stoker.jobs.fleet import close_incarnation, set_draining
from stoker.jobs.lifecycle import State
from stoker.jobs.models import Event
from stoker.messages.app import make_app
from stoker.stack.postgres import Postgres
from stoker.workers import processes
from tests.support.flower import Flower
from tests.support.waiting import wait_for
from tests.support.workers import Stage, attempt_id, stage

ACTOR = "Flower (shared login)"


@pytest.fixture(scope="module")
def watched(postgres: Postgres, template_database: str) -> Iterator[Stage]:
    """A stage with one worker."""
    with stage(postgres, template_database) as made:
        made.started("one", cancel_grace_seconds=0.5, claim_seconds=60)
        yield made


@pytest.fixture(scope="module")
def flower(watched: Stage) -> Iterator[Flower]:
    """Flower, that knows the worker."""
    made = Flower(watched.home, watched.broker.url)
    made.knows("one")
    yield made
    made.close()


@pytest.fixture
def drained(watched: Stage) -> Iterator[Callable[[], None]]:
    """Lets the worker take nothing new, until the test is over."""

    def drain(draining: bool = True) -> None:
        with watched.factory() as session:
            set_draining(session, "one", draining, actor="ada")
            session.commit()

    yield drain
    drain(False)


def told(watched: Stage, number: int) -> list[tuple[str, str, str]]:
    """A job's events: name, actor, reason."""
    with watched.factory() as session:
        rows = session.execute(select(Event).where(Event.job_number == number).order_by(Event.id)).scalars()
        return [(event.name, event.actor, event.reason) for event in rows]


def fits_the_row(watched: Stage, number: int, shown: dict[str, object], ordinal: int = 1) -> bool:
    """Whether Flower shows an attempt by the job's name, number, owner and team, with the runtime of the table."""
    attempt = watched.attempts(number)[ordinal - 1]
    assert attempt.ended_at is not None
    assert attempt.claimed_at is not None
    assert shown["args"] == f"digits-tutorial-cnn · job {number} · attempt {ordinal}"
    assert shown["kwargs"] == "user=ada team=vision"
    assert shown["runtime"] == pytest.approx((attempt.ended_at - attempt.claimed_at).total_seconds())
    assert shown["started"] == pytest.approx(attempt.claimed_at.timestamp())
    return True


def trainer_of(watched: Stage, attempt: UUID) -> int:
    """The process that trains for an attempt."""
    for pid in processes.descendants(watched.workers[-1].pid):
        with suppress(FileNotFoundError):  # it has just ended
            if Path(f"/proc/{pid}/cwd").resolve().name == str(attempt):
                return pid
    raise AssertionError(f"nothing trains for {attempt}")


def test_each_attempt_is_a_task_with_the_state_and_runtime_that_it_had(watched: Stage, flower: Flower) -> None:
    good, bad, unwanted, early = (watched.odd(name) for name in ("succeed", "killed", "stubborn", "obedient"))
    watched.wait_progress(unwanted)
    running = flower.shows(attempt_id(watched, unwanted), "STARTED")
    assert running["runtime"] is None
    watched.wait_progress(early)
    watched.cancel(unwanted)
    watched.preempt(early)
    for number in (good, bad, unwanted, early):
        watched.wait_final(number)
    success = flower.shows(attempt_id(watched, good), "SUCCESS")
    failure = flower.shows(attempt_id(watched, bad), "FAILURE")
    cancelled = flower.shows(attempt_id(watched, unwanted), "REVOKED")
    first, second = watched.attempts(early)
    preempted = flower.shows(first.id, "RETRY")
    assert fits_the_row(watched, good, success)
    assert fits_the_row(watched, bad, failure)
    assert fits_the_row(watched, unwanted, cancelled)
    assert fits_the_row(watched, early, preempted)
    assert fits_the_row(watched, early, flower.shows(second.id, "SUCCESS"), 2)
    assert success["result"] == "accuracy 50.00%"
    assert str(failure["exception"]).startswith("signal: it was ended by signal 9 (SIGKILL)")
    assert cancelled["exception"] == "cancelled by ada"
    assert preempted["exception"] == "queued again: preempted"
    assert str(success["worker"]).startswith("one@")
    listed = flower.http.get("/api/tasks", params={"search": "digits-tutorial-cnn", "taskname": "stoker.run"}).json()
    assert str(attempt_id(watched, good)) in listed


@pytest.mark.parametrize("terminate", [{"terminate": "true"}, {}])
def test_terminate_and_revoke_cancel_a_job_that_runs(watched: Stage, flower: Flower, terminate: dict[str, str]) -> None:
    number = watched.odd("stubborn")
    watched.wait_progress(number)
    answer = flower.ask(f"/api/task/revoke/{attempt_id(watched, number)}", **terminate)
    assert answer.status_code == 200
    assert watched.wait_final(number).state == State.CANCELLED
    assert ("cancel_requested", ACTOR, "asked") in told(watched, number)
    assert flower.shows(attempt_id(watched, number), "REVOKED")["exception"] == f"cancelled by {ACTOR}"


def test_revoke_cancels_a_job_that_is_only_placed(watched: Stage, flower: Flower, drained: Callable[[], None]) -> None:
    incarnation = watched.worker("ghost")  # of which nobody reads the queue
    drained()
    number = watched.odd("succeed")
    wait_for(lambda: watched.attempts(number), 30, "a place")
    task = attempt_id(watched, number)
    assert flower.shows(task, "PENDING")["args"] == f"digits-tutorial-cnn · job {number} · attempt 1"
    assert flower.ask(f"/api/task/revoke/{task}").status_code == 200
    assert watched.wait_final(number).state == State.CANCELLED
    assert ("cancel", ACTOR, "asked") in told(watched, number)
    with watched.factory() as session:  # a worker that is gone: another one tells of its attempts
        close_incarnation(session, incarnation, "gone")
        session.commit()
    seen = flower.shows(task, "REVOKED")
    assert (seen["worker"], seen["runtime"]) == ("ghost@host", None)


def test_revoke_of_an_attempt_that_is_to_be_followed_by_another_cancels_the_job(
    watched: Stage, flower: Flower, drained: Callable[[], None]
) -> None:
    number = watched.odd("obedient")
    watched.wait_progress(number)
    drained()
    watched.preempt(number)
    task = attempt_id(watched, number)
    flower.shows(task, "RETRY")
    assert flower.ask(f"/api/task/revoke/{task}").status_code == 200
    assert watched.wait_final(number).state == State.CANCELLED
    assert ("cancel", ACTOR, "asked") in told(watched, number)


def test_messages_that_claim_nothing_change_no_state(watched: Stage, flower: Flower) -> None:
    number = watched.odd("obedient")
    watched.wait_progress(number)
    watched.preempt(number)
    watched.wait_final(number)
    first, stranger, garbage = watched.attempts(number)[0].id, uuid4(), uuid4()
    flower.shows(first, "RETRY")
    with make_app(watched.broker.url) as app:
        for task, arguments in ((first, [str(first)]), (stranger, [str(stranger)]), (garbage, ["none", 2])):
            app.send_task("stoker.run", args=arguments, task_id=str(task), queue="worker.one")
    assert flower.shows(stranger, "FAILURE")["exception"] == "Stoker knows no such attempt"
    assert "it names no attempt" in flower.shows(garbage, "FAILURE")["exception"]
    wait_for(lambda: watched.log("one").count("late, doubled or foreign") >= 2, 30, "the late one to be dropped")
    next_one = watched.odd("succeed")
    watched.wait_final(next_one)
    flower.shows(attempt_id(watched, next_one), "SUCCESS")  # so all events before it were heard
    assert flower.task(first)["state"] == "RETRY"


@pytest.fixture
def away(watched: Stage) -> Iterator[Callable[[], None]]:
    """The database takes no claims until this is called."""

    def tell(*statements: str) -> None:
        with watched.engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))

    def back() -> None:
        tell("drop function if exists away cascade")

    tell(
        "create function away() returns trigger language plpgsql as "
        "$$ begin raise exception 'away' using errcode = '57P03'; end $$",
        "create trigger away before update on attempts for each row when (new.state = 'running') "
        "execute function away()",
    )
    yield back
    back()


def test_an_attempt_whose_claim_failed_is_not_told_of_until_it_is_claimed(
    watched: Stage, flower: Flower, away: Callable[[], None]
) -> None:
    before = watched.log("one").count("claim_failed")
    number = watched.odd("succeed")
    wait_for(lambda: watched.log("one").count("claim_failed") >= before + 2, 60, "claims to fail")
    away()
    watched.wait_final(number)
    assert len(watched.attempts(number)) == 1
    shown = flower.shows(attempt_id(watched, number), "SUCCESS")
    assert (shown["failed"], shown["exception"]) == (None, None)


def test_what_ended_while_redis_was_away_is_shown_once_it_is_back(watched: Stage, flower: Flower) -> None:
    good, bad, unwanted, early = (watched.odd(name) for name in ("patient", "stubborn", "stubborn", "obedient"))
    tasks = {number: watched.wait_progress(number).id for number in (good, bad, unwanted, early)}
    for task in tasks.values():
        flower.shows(task, "STARTED")
    doomed = trainer_of(watched, tasks[bad])
    watched.broker.child.kill()
    (watched.home / "marks").mkdir(exist_ok=True)
    (watched.home / "marks" / "enough").touch()
    watched.cancel(unwanted)
    watched.preempt(early)
    os.kill(doomed, signal.SIGKILL)
    wait_for(lambda: all(watched.attempts(number)[0].ended_at for number in tasks), 30, "all four to end")
    assert flower.task(tasks[good])["state"] == "STARTED"
    watched.broker.restart()
    for number, state in ((good, "SUCCESS"), (bad, "FAILURE"), (unwanted, "REVOKED"), (early, "RETRY")):
        assert fits_the_row(watched, number, flower.shows(tasks[number], state))


def test_flower_that_was_away_is_told_what_it_missed(watched: Stage, flower: Flower) -> None:
    running = watched.odd("stubborn")
    watched.wait_progress(running)
    flower.program.child.kill()
    number, later = watched.odd("succeed"), watched.odd("stubborn")
    watched.wait_final(number)
    watched.wait_progress(later)
    flower.start()
    assert fits_the_row(watched, number, flower.shows(attempt_id(watched, number), "SUCCESS"))
    for job in (running, later):
        shown = flower.shows(attempt_id(watched, job), "STARTED")
        assert shown["args"] == f"digits-tutorial-cnn · job {job} · attempt 1"
        watched.cancel(job)
        flower.shows(attempt_id(watched, job), "REVOKED")


def test_the_password_of_the_broker_is_not_shown(watched: Stage, flower: Flower) -> None:
    flower.knows("one")
    shown = flower.http.get("/api/workers", params={"refresh": "1"}, timeout=30).text
    assert "redis+socket" in shown
    assert watched.broker.password not in shown


def test_what_would_stop_a_worker_unseen_is_refused(watched: Stage, flower: Flower) -> None:
    worker = flower.knows("one")
    for button, parameters in (
        ("worker/queue/cancel-consumer", {"queue": "worker.one"}),
        ("worker/pool/shrink", {"n": "1"}),
    ):
        answer = flower.ask(f"/api/{button}/{worker}", **parameters)
        assert (answer.status_code, "Stoker does not allow" in answer.text) == (403, True), answer.text
    assert watched.wait_final(watched.odd("succeed")).state == State.SUCCEEDED


def endpoints(method: str) -> list[str]:
    """Flower's own list of addresses that answer a method, with an argument where they take one."""
    found = []
    for entry in urls.handlers:
        pattern, handler = (
            (entry[0], entry[1]) if isinstance(entry, tuple) else (entry.regex.pattern, entry.handler_class)
        )
        path = re.sub(r"\(.*?\)", "x", pattern.rstrip("$")).replace("/?", "")
        if method in vars(handler) and path.startswith("/"):
            found.append(path)
    return found


def test_all_of_flower_but_its_health_asks_for_the_password(flower: Flower) -> None:
    with httpx.Client(base_url=flower.http.base_url) as stranger:
        answers = [
            (path, stranger.request(method, path).status_code)
            for method in ("get", "post")
            for path in endpoints(method)
        ]
    assert len(answers) > 25
    open_to_all = {path for path, status in answers if status != 401}
    assert open_to_all <= {"/healthcheck", "/static/x", "/login", "/logout"}
    assert "flower_events_total" in flower.http.get("/metrics").text


def test_flower_sends_no_task_whatever_it_is_called(watched: Stage, flower: Flower) -> None:
    with make_app(watched.broker.url).connection_for_write() as connection:
        redis = connection.default_channel.client
        for way in ("apply", "async-apply", "send-task"):
            for task in ("stoker.run", "celery.backend_cleanup", "os.system"):
                answer = flower.http.post(
                    f"/api/task/{way}/{task}", json={"args": [str(uuid4())], "queue": "elsewhere"}
                )
                assert (answer.status_code, "Stoker does not allow" in answer.text) == (403, True), (way, task)
        assert (redis.llen("elsewhere"), redis.llen("celery")) == (0, 0)


def test_what_flower_could_change_is_known_and_all_but_two_of_it_refused(flower: Flower) -> None:
    worker = flower.knows("one")
    parameters = {"workername": worker, "n": "1", "min": "1", "max": "2", "queue": "other", "soft": "1", "hard": "2"}
    changing = [path for path in endpoints("post") if path.startswith("/api/")]
    assert len(changing) > 10
    answers = {}
    for path in changing:
        about = "celery.accumulate" if "/task/" in path else worker  # a task that Flower knows
        if path not in {"/api/worker/shutdown/x", "/api/task/revoke/x"}:
            answers[path] = flower.ask(path.removesuffix("x") + about, **parameters, ratelimit="1/s").status_code
    assert answers.pop("/api/task/abort/x") == 503  # it would need a store of results, as this does:
    assert flower.http.get("/api/task/result/x").status_code == 503
    assert set(answers.values()) == {403}, answers


def test_shutdown_in_flower_hands_the_jobs_back_with_their_checkpoints(watched: Stage, flower: Flower) -> None:
    number = watched.odd("obedient")
    watched.wait_progress(number)
    assert flower.ask(f"/api/worker/shutdown/{flower.knows('one')}").status_code == 200
    assert watched.workers[-1].wait(30) == 0
    assert watched.worker_states()["one"] == "stopped"
    first = watched.attempts(number)[0]
    assert (first.outcome, watched.job(number).state) == ("preempted", State.QUEUED)
    assert ("shutdown", ACTOR, "worker one is to stop") in told(watched, number)
    with watched.factory() as session:
        asked, closed = session.scalars(
            select(Event).where(Event.worker_id == first.worker_id, Event.job_number.is_(None)).order_by(Event.id)
        ).all()[-2:]
        assert (asked.name, asked.actor) == ("shutdown", ACTOR)
        assert (closed.name, closed.reason) == ("worker_closed", f"the worker was stopped by {ACTOR}")
    assert flower.shows(first.id, "RETRY")["exception"] == "queued again: worker_stopping"
    flower.stop()
    flower.start()  # no worker is there to tell it anything: it remembers
    assert fits_the_row(watched, number, flower.task(first.id))
    watched.started("one", cancel_grace_seconds=0.5, claim_seconds=60)
    assert watched.wait_final(number).state == State.SUCCEEDED
    assert watched.attempts(number)[1].resumed_step > 0


def test_an_attempt_whose_worker_was_killed_is_shown_as_queued_again(watched: Stage, flower: Flower) -> None:
    number = watched.odd("obedient")
    watched.wait_progress(number)
    watched.workers[-1].kill()
    first = attempt_id(watched, number)
    watched.started("one", cancel_grace_seconds=0.5, claim_seconds=60)
    lost = flower.shows(first, "RETRY")
    assert str(lost["exception"]).startswith("queued again: worker_lost: ")
    watched.cancel(number)
    watched.wait_final(number)
