"""A team's own code from the command line: submitted, cloned, shown, pulled; secrets."""

import hashlib
import json
from pathlib import Path
from typing import Any, NoReturn

import pytest
from sqlalchemy import select, text

from stoker.client.client import Client
from stoker.client.job import Job as ClientJob
from stoker.errors import InvalidInput, Unavailable
from stoker.jobs import blobs
from stoker.jobs.attempts import Ending, OutputRecord, Usage
from stoker.jobs.lifecycle import Outcome
from stoker.jobs.models import Event, Job
from tests.api.conftest import Run
from tests.support.server import Server

FILES = {"report.txt": b"fine\n", "plots/<b>.svg": b"<svg onload='x'/>"}
SOFTWARE = {"python": "3.11.2", "torch": "2.14.1", "packages": {"numpy": "2.0"}, "device": "cpu-x", "driver": None}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a program and a notebook, where the shell stands."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "train.py").write_text("print(1)\n")
    (folder / "look.ipynb").write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    (folder / "requirements.txt").write_text("einops\n")
    monkeypatch.chdir(folder)
    return folder


def spec_of(run: Run, command: str, *arguments: str) -> dict[str, Any]:
    """The spec that a submit made."""
    result = run(command, "--json", *arguments)
    assert result.exit_code == 0, result.stderr
    spec: dict[str, Any] = json.loads(result.stdout)["spec"]
    return spec


def finish(server: Server, *, result: dict[str, Any] | None = None) -> None:
    """Let the one job that waits run, leave its files and tell what it used."""
    attempt = server.start()
    kept = []
    for path, content in FILES.items():
        stored = blobs.store(server.queue.factory, 1, [content])
        kept.append(OutputRecord(path, stored.blob_id, stored.size))
    usage = Usage(300 * 10**6, None, 30.0, SOFTWARE)
    ending = Ending(Outcome.SUCCEEDED, ran_seconds=60.0, outputs=tuple(kept), usage=usage, result=result)
    server.queue.finish(attempt, server.incarnation, ending)


def test_a_program_is_submitted_with_its_folder(run: Run, project: Path) -> None:
    options = (
        "--memory",
        "1GB",
        "--env",
        "A=b=c",
        "--requirements",
        "requirements.txt",
        "--dataset",
        "digits",
        "--tag",
        "t",
    )
    spec = spec_of(run, "run", *options, "--", "python", "train.py", "--lr", "0.1", "--wait")
    assert spec["script"]["command"] == ["python", "train.py", "--lr", "0.1", "--wait"]
    assert (spec["kind"], spec["name"], spec["tags"], spec["datasets"]) == ("script", "train", ["t"], ["digits"])
    assert spec["environment"] == {"requirements": "requirements.txt", "variables": {"A": "b=c"}}
    assert spec["resources"]["memory"] == 10**9
    said = run("run", "--memory", "1GB", "--", "python", "train.py")
    assert "3 files" in said.stderr
    dry = run("run", "--dry-run", "--", "python", "train.py")
    assert json.loads(dry.stdout)["script"]["code"] == spec["script"]["code"]


@pytest.mark.parametrize(("path", "words"), [("no.txt", "there is no file no.txt"), ("kept.txt", "is ignored")])
def test_requirements_that_are_not_in_the_code_are_refused_before_it_is_sent(
    run: Run, server: Server, project: Path, path: str, words: str
) -> None:
    (project / "kept.txt").write_text("einops\n")
    (project / ".stokerignore").write_text("kept.txt\n")
    refused = run("run", "--requirements", path, "--", "python", "train.py")
    assert (refused.exit_code, "environment.requirements" in refused.stderr, words in refused.stderr) == (2, True, True)
    with server.queue.factory() as session:
        assert list(session.scalars(select(Job))) == []


def test_a_notebook_is_submitted_with_its_parameters(run: Run, server: Server, project: Path) -> None:
    assignments = ("--set", "lr=0.01", "--set", 'name="a"', "--set", "sizes=[1,2]")
    spec = spec_of(run, "notebook", "look.ipynb", *assignments, "--memory", "1GB")
    assert (spec["kind"], spec["name"], spec["notebook"]["path"]) == ("notebook", "look", "look.ipynb")
    assert spec["notebook"]["parameters"] == {"lr": 0.01, "name": "a", "sizes": [1, 2]}
    finish(server)
    again = run("notebook", "look.ipynb", "--memory", "1GB")
    assert (again.exit_code, "in job 1; this one asks for 1.0 GB" in again.stderr) == (0, True), again.stderr


def test_the_python_client_does_the_same(server: Server, project: Path) -> None:
    with Client(server.url, server.token) as client:
        job = client.run(["python", "train.py"], memory=10**9, variables={"A": "b"}, name="mine")
        again = client.notebook("look.ipynb", {"lr": 1}, code=project, memory="1GB")
        with pytest.raises(InvalidInput, match="did you mean memory"):
            client.run(["python", "train.py"], memroy=1)
        assert (job.name, again.document["spec"]["notebook"]["parameters"]) == ("mine", {"lr": 1})
        assert again.document["spec"]["notebook"]["code"] == job.document["spec"]["script"]["code"]


def test_a_clone_runs_exactly_the_same_code(run: Run, server: Server, project: Path) -> None:
    first = spec_of(run, "run", "--memory", "1GB", "--name", "one", "--", "python", "train.py", "3")
    (project / "train.py").write_text("print(2)\n")
    assert spec_of(run, "clone", "one") == first
    changed = spec_of(run, "clone", "one", "--set", "priority=low", "--set", 'script.command=["python","train.py","4"]')
    assert (changed["script"]["code"], changed["priority"]) == (first["script"]["code"], "low")
    assert changed["script"]["command"][-1] == "4"
    assert run("clone", "nobody").exit_code == 4


def test_what_a_job_left_is_shown_and_pulled(run: Run, server: Server, project: Path, tmp_path: Path) -> None:
    spec_of(run, "run", "--memory", "1GB", "--", "python", "train.py")
    finish(server)
    shown = run("show", "train").stdout
    for words in ("python train.py", "python 3.11.2, torch 2.14.1", "plots/<b>.svg", "300.0 MB of 1.0 GB memory"):
        assert words in shown
    assert "0.5 of 1 CPUs on average" in shown
    assert "--memory 400MB would do" in shown
    (tmp_path / "out" / "plots").mkdir(parents=True)
    pulled = run("pull", "train", "--output", "-o", str(tmp_path / "out"))
    assert (pulled.exit_code, len(pulled.stdout.splitlines())) == (0, 2)
    assert {path: (tmp_path / "out" / path).read_bytes() for path in FILES} == FILES
    asked = run("run", "--memory", "1GB", "--", "python", "train.py")
    assert "the same code used 300.0 MB of memory, 60s in job 1; this one asks for 1.0 GB" in asked.stderr
    document = json.loads(run("show", "1", "--json").stdout)
    assert [one["path"] for one in document["outputs"]] == sorted(FILES)
    assert document["usage"]["used"]["cpu_seconds"] == 30.0
    assert document["outputs"][1]["sha256"] == hashlib.sha256(FILES["report.txt"]).hexdigest()


def test_the_result_of_own_code_is_called_its_own_word(run: Run, server: Server, project: Path) -> None:
    spec_of(run, "run", "--memory", "1GB", "--", "python", "train.py")
    finish(server, result={"accuracy": 0.5, "note": "\x1b[31m", "self_reported": True})
    told = run("results", "train")
    assert told.exit_code == 0
    assert "accuracy: 0.5" in told.stdout
    assert "note: \\x1b[31m" in told.stdout
    assert "as the job's own code says" in told.stdout
    assert "2 output files: `stoker pull 1` fetches them" in told.stderr
    assert "used 300.0 MB of 1.0 GB memory, 0.5 of 1 CPUs on average, for 60s; --memory 400MB would do" in told.stderr
    spec_of(run, "run", "--memory", "1GB", "--", "python", "train.py")
    finish(server)
    silent = run("results", "2")
    assert (silent.exit_code, silent.stdout) == (0, "")
    assert "job 2 succeeded; it told no result" in silent.stderr


def test_a_question_that_fails_changes_neither_a_submit_nor_a_fate(
    run: Run, server: Server, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> NoReturn:
        raise Unavailable("the database")

    for question in ("why", "usage", "output_items"):
        monkeypatch.setattr(ClientJob, question, away)
    asked = run("run", "--memory", "1GB", "--", "python", "train.py")
    assert (asked.exit_code, asked.stdout.split()[:3]) == (0, ["1", "queued", "train"]), asked.stderr
    finish(server, result={"accuracy": 0.5})
    watched = run("watch", "1")
    assert (watched.exit_code, "the database" in watched.stderr) == (0, True), watched.stderr


def test_a_file_is_never_written_through_a_link(run: Run, server: Server, project: Path, tmp_path: Path) -> None:
    spec_of(run, "run", "--memory", "1GB", "--", "python", "train.py")
    finish(server)
    (tmp_path / "out").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "out" / "plots").symlink_to(tmp_path / "outside")
    refused = run("pull", "train", "-o", str(tmp_path / "out"))
    assert (refused.exit_code, list((tmp_path / "outside").iterdir())) == (2, [])
    assert "through a link" in refused.stderr


def test_outputs_over_http_are_files_to_keep(run: Run, server: Server, project: Path) -> None:
    spec_of(run, "run", "--memory", "1GB", "--", "python", "train.py")
    finish(server)
    with Client(server.url, server.token) as client:
        http = client._transport._http
        answer = http.get("/api/v1/jobs/1/outputs/plots/%3Cb%3E.svg")
        assert (answer.status_code, answer.content) == (200, FILES["plots/<b>.svg"])
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"].startswith('attachment; filename="_b_.svg"')
        assert answer.headers["content-security-policy"].startswith("sandbox")
        assert answer.headers["x-content-type-options"] == "nosniff"
        for path in ("nothing", "..%2F..%2Fetc", "%252e%252e/x", "a%00b"):
            assert http.get(f"/api/v1/jobs/1/outputs/{path}").status_code in (404, 422), path
        first = http.get("/api/v1/jobs/1/outputs?limit=1").json()
        second = http.get("/api/v1/jobs/1/outputs", params={"limit": 1, "cursor": first["next"]}).json()
        assert [first["items"][0]["path"], second["items"][0]["path"], second["next"]] == [*sorted(FILES), None]
        assert http.get("/api/v1/jobs/1/outputs?cursor=job-1").status_code == 422


REFUSED: list[tuple[tuple[str, ...], int, str]] = [
    (("run",), 2, "is missing; write it after two dashes"),
    (("run", "--", "python", "tain.py"), 2, "there is no file tain.py"),
    (("run", "--code", "nowhere", "--", "true"), 2, "is no folder"),
    (("run", "--env", "LD_PRELOAD=x", "--", "true"), 2, "LD_PRELOAD is reserved"),
    (("run", "--env", "A", "--", "true"), 2, "is no assignment"),
    (("run", "--secret", "KEY", "--", "true"), 2, "your team has no secret KEY"),
    (("run", "--dataset", "digist", "--", "true"), 2, "nearest: digits"),
    (("notebook", "train.py"), 2, "train.py is not a notebook"),
    (("notebook", "none.ipynb"), 2, "none.ipynb is not there"),
    (("notebook", "/etc/hostname"), 2, "is outside the code"),
    (("pull", "1", "--output", "--checkpoint", "best"), 2, "not both"),
    (("pull", "77"), 4, "no job 77"),
]


def test_what_cannot_be_done_is_one_sentence(run: Run, server: Server, project: Path) -> None:
    for arguments, code, words in REFUSED:
        result = run(*arguments)
        assert (result.exit_code, words in result.stderr) == (code, True), result.stderr
    with server.queue.factory() as session:
        assert session.scalars(select(Job.number)).all() == []


def test_a_secret_goes_in_and_never_comes_out(run: Run, server: Server, project: Path) -> None:
    assert run("secret", "add", "WANDB_KEY", input="swordfish\n").exit_code == 0
    assert run("secret", "set", "WANDB_KEY", input="swordfish2\n").exit_code == 0
    assert spec_of(run, "run", "--memory", "1GB", "--secret", "WANDB_KEY", "--", "true")["secrets"] == ["WANDB_KEY"]
    listed = run("secret", "ls")
    assert "WANDB_KEY" in listed.stdout
    assert (
        "swordfish" not in listed.stdout + run("secret", "ls", "--json").stdout + run("show", "true", "--json").stdout
    )
    with server.queue.factory() as session:
        told = session.execute(
            text("SELECT secrets::text || ' ' || encode(ciphertext, 'escape') FROM secrets")
        ).scalars()
        assert "swordfish" not in "".join(told)
        names = session.scalars(select(Event.name).where(Event.name.like("secret%")).order_by(Event.id)).all()
    assert names == ["secret_set", "secret_set"]
    for name, value, words in (("PATH", "x", "PATH is reserved"), ("A", "", "is empty"), ("a", "x", "is not a name")):
        refused = run("secret", "add", name, input=value)
        assert (refused.exit_code, words in refused.stderr) == (2, True), refused.stderr
    assert run("secret", "rm", "WANDB_KEY").exit_code == 0
    assert run("secret", "rm", "WANDB_KEY").exit_code == 4
