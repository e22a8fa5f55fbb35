"""The command line against a real API: what is printed, and every exit code."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import text

from stoker.client.cli import cli
from stoker.client.client import Client
from stoker.jobs.fleet import Identity, Offer, register
from stoker.jobs.records import Batch
from tests.api.conftest import Run
from tests.api.test_client_uploads import image_folder
from tests.support.server import SECRET_KEY, Server
from tests.support.waiting import wait_for

SMALL = ("--dataset", "digits", "--memory", "100MB")
HOSTILE = "<script>\U0001f600'; DROP"  # allowed in a name: it must only ever be shown


def submit(run: Run, *arguments: str) -> str:
    """Submit a small job; its number."""
    result = run("train", *SMALL, "-q", *arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout.strip()


def document(result: Result) -> Any:
    """What a successful command printed as JSON: one document, nothing else."""
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def process(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start a command as a process of its own, which hears Ctrl-C even where the tests were started not to."""
    command = ["env", "--default-signal=INT", sys.executable, "-m", "stoker.client.cli", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_the_way_of_a_job_as_a_user_sees_it(server: Server, run: Run) -> None:
    shown = run("train", *SMALL, "--name", HOSTILE, "--tag", "a", "--epochs", "3")
    assert shown.stdout.startswith(f"1 queued  {HOSTILE}  #1 in queue, starts at once")
    assert shown.stdout.splitlines()[1].endswith("/jobs/1")
    waiting = document(run("why", "1", "--json"))
    assert waiting["position"] == 1
    assert waiting["sentence"] in run("why", HOSTILE).stdout
    assert [job["number"] for job in document(run("ps", "--json"))["items"]] == [1]
    assert run("ps", "-q").stdout == "1\n"
    attempt = server.start()
    progress = {"epoch": 1, "epochs": 3, "step": 10, "steps": 30}
    hostile_log = "fine\n\x1b[31mred\x1b[0m \x1b]0;owned\x07\u202etxt\r50 %\r\n"
    server.report(attempt, Batch(progress=progress, metrics={"loss": ([5, 10], [2.0, 1.5])}, log=hostile_log))
    table = run("ps").stdout
    assert HOSTILE in table
    assert "33 %" in table
    assert " 1.5 " in table
    (shown_again,) = document(run("ps", "--json"))["items"]
    assert shown_again["loss"] == 1.5
    assert shown_again["ends_at"] is not None
    assert run("logs", "1").stdout == "fine\nred \\x1b]0;owned\\x07\\u202etxt\n50 %\n"
    assert document(run("logs", "1", "--tail", "1", "--json"))["items"][0]["text"].endswith("50 %\r\n")
    assert document(run("metrics", "1", "--json"))["metrics"]["loss"]["values"] == [2.0, 1.5]
    assert "1.5" in run("metrics", "1").stdout
    assert run("metrics", "1", "loss").stdout.count("loss") == 2
    assert run("results", "1").exit_code == 101
    server.succeed(attempt)
    results = run("results", "1")
    assert results.exit_code == 0
    assert "Accuracy of the network on the 4 test images: 75 %" in results.stdout
    assert "Accuracy for class: dog   is 50.0 %" in results.stdout
    assert "\x1b" not in results.stdout
    assert document(run("results", "1", "--json"))["accuracy"] == 0.75
    found = document(run("predictions", "1", "--wrong", "--json"))
    assert (found["count"], found["matching"], found["items"][0]["predicted"]) == (4, 1, "cat")
    assert "wrong" in run("predictions", "1", "--label", "dog").stdout
    assert "\x1b" not in run("predictions", "1").stdout
    everything = document(run("show", "1", "--json"))
    assert [event["name"] for event in everything["events"]][-1] == "succeed"
    assert "75.0 %" in run("show", "1").stdout
    assert run("ps").stdout.strip() == ""
    assert "succeeded" in run("ps", "-a").stdout


def test_a_command_that_follows_ends_with_the_fate_of_its_job(server: Server, run: Run) -> None:
    assert run("wait", submit(run), "--timeout", "0.1").exit_code == 101
    server.fail(server.start())
    failed = run("watch", "1")
    assert failed.exit_code == 100
    assert "ValueError: no" in failed.stderr
    assert run("results", "1").exit_code == 100
    submit(run)
    assert "cancelled" in run("cancel", "2").stdout
    assert run("cancel", "2").exit_code == 0
    assert run("wait", "2").exit_code == 103
    submit(run)
    server.succeed(server.start())
    assert run("wait", "3").exit_code == 0
    assert run("wait", "1", "2", "3").exit_code == 100
    assert run("logs", "3", "-f").exit_code == 0
    again = run("cancel", "3")
    assert again.exit_code == 1
    assert "succeeded" in again.stderr


def test_follow_shows_progress_and_then_the_result(server: Server, run: Run) -> None:
    def work() -> None:
        wait_for(lambda: next(iter(client.jobs()), None), 20, "the job")
        attempt = server.start()
        server.report(attempt, Batch(progress={"epoch": 1, "epochs": 2, "step": 1, "steps": 2}, log="a\n"))
        server.succeed(attempt)

    client = Client()
    worker = threading.Thread(target=work)
    worker.start()
    with process("train", *SMALL, "--follow") as followed:
        out, messages = followed.communicate(timeout=30)
    worker.join()
    client.close()
    assert followed.returncode == 0, messages
    assert out.splitlines()[0].startswith("1 queued")
    assert out.splitlines()[2] == "Accuracy of the network on the 4 test images: 75 %"
    assert "job 1 succeeded  epoch 1/2" in messages
    lines = [json.loads(line) for line in run("watch", "1", "--json").stdout.splitlines()]
    assert lines[-1]["event"] == "end"


def test_ctrl_c_detaches_and_the_job_goes_on(server: Server, run: Run) -> None:
    submit(run)
    server.start()
    with process("watch", "1") as watching:
        assert watching.stderr is not None
        assert watching.stderr.readline().startswith("job 1 running on one")
        watching.send_signal(signal.SIGINT)
        _, messages = watching.communicate(timeout=30)
    assert watching.returncode == 130
    assert "stoker watch 1" in messages
    assert server.queue.job(1).state == "running"


def test_a_spec_comes_from_a_file_or_from_stdin(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("name: from-file\ntrain: {dataset: digits, optimizer: {lr: 1e-3}}\nresources: {memory: 100MB}\n")
    made = document(run("submit", str(path), "--json", "--tag", "x"))
    assert (made["name"], made["tags"], made["spec"]["train"]["optimizer"]["lr"]) == ("from-file", ["x"], 0.001)
    assert run("submit", "-", "-q", input=path.read_text()).stdout == "2\n"
    assert run("submit", str(path), "-q", "--key", "k").stdout == run("submit", str(path), "-q", "--key", "k").stdout


def test_nobody_unknown_nothing_there(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("show", "999").exit_code == 4
    assert run("show", "nobody").exit_code == 4
    assert run("cancel", "999").exit_code == 4
    assert run("worker", "drain", "one").exit_code == 3
    monkeypatch.setenv("STOKER_TOKEN", "stk_" + "x" * 43)
    assert run("ps").exit_code == 3
    monkeypatch.setenv("STOKER_URL", "http://127.0.0.1:9")
    assert run("ps").exit_code == 5
    monkeypatch.setenv("STOKER_URL", "localhost")
    assert run("ps").exit_code == 2


def test_what_a_worker_has_to_say_is_shown(server: Server, run: Run) -> None:
    assert "confined" not in run("workers").stdout
    assert document(run("workers", "--json"))["items"][0]["notice"] == ""
    offer = Offer("open", 1000, 10**9, 1, "cpu-x", notice="jobs are NOT confined here: no Landlock")
    with server.queue.factory() as session:
        register(session, offer, Identity(uuid.uuid4(), "host", "boot", 1, 0.0, "test"), 60)
        session.commit()
    assert run("workers").stdout.splitlines()[-1] == "open: jobs are NOT confined here: no Landlock"


def test_workers_are_listed_drained_and_resumed(server: Server, run: Run) -> None:
    server.promote()
    assert document(run("workers", "--json"))["items"][0]["name"] == "one"
    assert "0/4" in run("workers").stdout
    assert document(run("worker", "drain", "one", "--json")) == {"name": "one", "draining": True}
    assert "draining" in run("workers").stdout
    assert run("worker", "resume", "one").exit_code == 0
    number = submit(run)
    server.start()
    assert run("worker", "drain", "one", "--now").exit_code == 0
    assert "one is drained" in run("show", number).stdout
    assert run("worker", "drain", "nobody").exit_code == 4


def test_the_metrics_of_a_job_that_diverged(server: Server, run: Run) -> None:
    submit(run)
    nan = math.nan
    server.report(server.start(), Batch(metrics={"loss": ([1, 2, 3], [2.5, 1.5, nan]), "accuracy": ([1], [nan])}))
    short = [line.split("  ") for line in run("metrics", "1").stdout.splitlines()]
    assert [cell.strip() for cell in short[2] if cell] == ["loss", "3", "not finite", "1.5", "2.5"]
    assert [cell.strip() for cell in short[1] if cell] == ["accuracy", "1", *["not finite"] * 3]
    assert run("metrics", "1", "loss").stdout.splitlines()[-1].split() == ["loss", "3", "not", "finite"]
    assert document(run("metrics", "1", "--json"))["metrics"]["loss"]["values"] == [2.5, 1.5, None]


def test_a_live_worker_was_seen_now(server: Server, run: Run) -> None:
    with server.queue.factory() as session:
        session.execute(text("UPDATE workers SET last_seen_at = now() - interval '3 hours'"))
        session.commit()
    assert run("workers").stdout.splitlines()[1].split()[-1] == "now"
    with server.queue.factory() as session:
        session.execute(text("UPDATE leases SET expires_at = now() - interval '1 second'"))
        session.commit()
    assert run("workers").stdout.splitlines()[1].split()[-1] == "3h00m"


def test_data_sets_are_added_and_listed(run: Run, tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "data")
    added = run("dataset", "add", "pets", str(folder))
    assert "2 classes, 4 training and 4 test images" in added.stdout
    assert document(run("dataset", "ls", "--json"))["items"][0]["name"] == "pets"
    assert "pets" in run("dataset", "ls").stdout
    assert run("dataset", "add", "Bad Name", str(folder)).exit_code == 2
    assert run("dataset", "add", "pets", str(tmp_path / "nowhere")).exit_code == 2


def test_login_keeps_a_token_that_is_good(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STOKER_TOKEN")
    assert run("ps").exit_code == 3
    assert run("login", server.url, input="stk_" + "x" * 43 + "\n").exit_code == 3
    assert run("login", server.url, input="password\n").exit_code == 2
    kept = run("login", server.url, input=server.token + "\n")
    assert "ada (team vision, member)" in kept.stdout
    assert server.token not in kept.output
    monkeypatch.delenv("STOKER_URL")
    assert document(run("whoami", "--json"))["user"] == "ada"
    told = run("config").stdout
    assert server.url in told
    assert server.token not in told


def test_doctor_finds_the_server_and_the_worker(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = {item["check"]: item for item in document(run("doctor", "--json"))["checks"]}
    assert checks["confinement"]["found"]
    assert checks["server"]["grade"] == checks["workers"]["grade"] == checks["postgresql"]["grade"] == "ok"
    monkeypatch.setenv("STOKER_URL", "http://127.0.0.1:9")
    assert run("doctor").exit_code == 1
    monkeypatch.setenv("STOKER_LEASE_SECNODS", "3")
    sick = run("doctor")
    assert sick.exit_code == 1
    assert "did you mean STOKER_LEASE_SECONDS" in sick.stdout


@pytest.mark.parametrize(
    ("key", "grade", "words"),
    [
        ("", "note", "jobs cannot have secrets"),
        (SECRET_KEY, "ok", "STOKER_SECRET_KEY"),
        (f"{SECRET_KEY},{SECRET_KEY}", "ok", "STOKER_SECRET_KEY"),
        ("short", "problem", "32 bytes"),
        ("é" * 44, "problem", "32 bytes"),
    ],
)
def test_doctor_looks_at_the_key_of_secrets(
    run: Run, monkeypatch: pytest.MonkeyPatch, key: str, grade: str, words: str
) -> None:
    monkeypatch.setenv("STOKER_DATABASE_URL", "postgresql+psycopg://host/stoker")
    monkeypatch.setenv("STOKER_SECRET_KEY", key)
    checks = {item["check"]: item for item in json.loads(run("doctor", "--json").stdout)["checks"]}
    assert (checks["secret key"]["grade"], words in checks["secret key"]["found"]) == (grade, True)


def test_the_tables_are_made_and_the_administrator_once(
    empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    invoke = CliRunner().invoke
    assert invoke(cli, ["migrate"]).exit_code == 2
    monkeypatch.setenv("STOKER_DATABASE_URL", empty_database_url)
    path = tmp_path / "token"
    made = invoke(cli, ["migrate", "--token-file", str(path)])
    assert made.exit_code == 0, made.output
    assert path.stat().st_mode & 0o777 == 0o600
    token = path.read_text()
    assert token.startswith("stk_")
    assert token.strip() not in made.output
    assert "no token was made" in invoke(cli, ["migrate", "--token-file", str(path)]).stderr
    assert path.read_text() == token


def test_a_closed_pipe_is_no_traceback(server: Server, run: Run) -> None:
    for _ in range(3):
        submit(run)
    reader, writer = os.pipe()
    os.close(reader)
    broken = subprocess.run(
        [sys.executable, "-m", "stoker.client.cli", "ps"], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (broken.returncode, broken.stderr) == (1, "")
