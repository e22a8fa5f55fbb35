"""What a job cannot ask for: refused alike by API and command line, naming the field, the value and what to do."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from stoker.client.cli import cli
from tests.support.finished_job import FakeWorker

JOBS = "/api/v1/jobs"
WHOLE = "ask for a whole number up to 1024, or for a part of one: 0.001 to 0.999"
MEMORY = 'is not an amount of memory; write it like "4GB" or "512MiB", up to 1024TiB'
NONE = "for a job without a GPU set resources.device: cpu"


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"gpus": -1}, f"resources.gpus: -1 GPUs cannot be given; {WHOLE}"),
    ({"gpus": 0}, f"resources.gpus: 0 GPUs cannot be given; {WHOLE}; {NONE}"),
    ({"gpus": 1.5}, f"resources.gpus: 1.5 GPUs cannot be given; {WHOLE}"),
    ({"gpus": 0.9999}, f"resources.gpus: 0.9999 GPUs cannot be given; {WHOLE}"),
    ({"gpus": 10**13}, f"resources.gpus: 10000000000000 GPUs cannot be given; {WHOLE}"),
    ({"cpus": -0.5}, "resources.cpus: -0.5 CPUs cannot be given; ask for 0.001 to 4096"),
    ({"cpus": 0}, "resources.cpus: 0 CPUs cannot be given; ask for 0.001 to 4096"),
    ({"cpus": 1e300}, "resources.cpus: 1e+300 CPUs cannot be given; ask for 0.001 to 4096"),
    ({"memory": "12 parsecs"}, f"resources.memory: '12 parsecs' {MEMORY}"),
    ({"memory": "-4GB"}, f"resources.memory: '-4GB' {MEMORY}"),
    ({"memory": "0GB"}, f"resources.memory: '0GB' {MEMORY}"),
    ({"memory": "9999999TB"}, f"resources.memory: '9999999TB' {MEMORY}"),
    ({"memory": "a\\b\n'c'"}, rf"resources.memory: 'a\b\u000a'c'' {MEMORY}"),
    ({"gpu_memory": "GB"}, f"resources.gpu_memory: 'GB' {MEMORY}"),
    ({"gpu_type": " "}, "resources.gpu_type: has 1 characters; use 1 to 100, not only blanks"),
]


@pytest.mark.parametrize(("resources", "sentence"), REFUSED)
def test_bad_resources(client: TestClient, resources: dict[str, Any], sentence: str) -> None:
    answer = client.post(JOBS, json={"train": {"dataset": "digits"}, "resources": resources})
    assert (answer.status_code, answer.json()["detail"]) == (422, sentence)
    assert answer.json()["errors"][0]["field"] == sentence.partition(":")[0]
    options = [word for field, value in resources.items() for word in (f"--{field.replace('_', '-')}", str(value))]
    result = CliRunner().invoke(cli, ["train", "-d", "digits", *options, "--dry-run"])
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"Error: {sentence}\n")


def test_what_is_no_number_is_refused_by_each_in_its_own_words(client: TestClient, tmp_path: Path) -> None:
    odd = {"abc": "'abc' is not accepted", "1e999": "1e999 is not", "NaN": "NaN is not", "2" * 400: "the integer 222"}
    for value, words in odd.items():
        written = json.dumps(value) if value == "abc" else value
        for field in ("gpus", "cpus"):
            body = f'{{"train":{{"dataset":"digits"}},"resources":{{"{field}":{written}}}}}'
            detail = client.post(JOBS, content=body, headers={"Content-Type": "application/json"}).json()["detail"]
            assert detail.startswith(f"resources.{field}: "), detail
            assert words in detail
            (tmp_path / "spec.yaml").write_text(f"train: {{dataset: digits}}\nresources: {{{field}: {written}}}\n")
            for arguments in (["train", "-d", "digits", f"--{field}", value], ["submit", str(tmp_path / "spec.yaml")]):
                result = CliRunner().invoke(cli, [*arguments, "--dry-run"])
                assert result.exit_code == 2, arguments
                assert field in result.stderr, result.stderr


GPUS: list[tuple[str, Any]] = [("gpu_memory", "8GB"), ("gpu_type", "H100"), ("gpus", 0.3), ("gpus", 2)]


@pytest.mark.parametrize(("field", "value"), GPUS)
def test_options_that_contradict_each_other_are_refused_by_the_command_line(field: str, value: object) -> None:
    option = f"--{field.replace('_', '-')}"
    result = CliRunner().invoke(cli, ["train", "-d", "digits", "--device", "cpu", option, str(value), "--dry-run"])
    assert (result.exit_code, result.stdout) == (2, "")
    shown = f"'{value}'" if isinstance(value, str) else str(value)
    assert result.stderr.startswith(f"Error: resources.{field}: is {shown}, but resources.device is cpu; remove ")


@pytest.mark.parametrize(
    "resources", [{"gpus": 0.3}, {"gpu_memory": "8GB"}, *({"device": "cpu", field: value} for field, value in GPUS)]
)
def test_what_a_gpu_would_have_to_be_may_be_said_and_does_not_apply_to_a_cpu(
    client: TestClient, resources: dict[str, Any]
) -> None:
    answer = client.post(JOBS, json={"train": {"dataset": "digits"}, "resources": resources})
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize(
    ("resources", "field"),
    [
        ({"cpus": 64}, "cpus"),
        ({"memory": "1TB"}, "memory"),
        ({"device": "gpu"}, "device"),
        ({"device": "gpu", "gpus": 0.5}, "gpus"),
    ],
)
def test_what_no_worker_could_run_names_what_is_too_much(
    client: TestClient, factory: sessionmaker[Session], resources: dict[str, Any], field: str
) -> None:
    FakeWorker.start(factory)
    answer = client.post(JOBS, json={"train": {"dataset": "digits"}, "resources": resources})
    assert (answer.status_code, answer.json()["code"]) == (422, "unrunnable")
    assert answer.json()["errors"][0]["field"] == f"resources.{field}"
