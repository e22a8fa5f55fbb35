"""The folders in examples/ run as they are printed, on a worker as it is shipped."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stoker.jobs.lifecycle import State
from stoker.jobs.models import Predictions, Result
from stoker.stack.postgres import Postgres
from tests.support.own_code import outputs, submit_script, wheel_of
from tests.support.workers import REAL, ROOT, Stage, stage

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def real(postgres: Postgres, template_database: str) -> Iterator[Stage]:
    """A stage with one real worker."""
    with stage(postgres, template_database) as made:
        made.started("real", REAL)
        yield made


def files_of(folder: Path) -> dict[str, str | bytes]:
    """What `stoker run` carries along."""
    found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def run(real: Stage, files: dict[str, str | bytes], *command: str, **more: Any) -> tuple[int, str]:
    """The number and the log of a job that has succeeded."""
    number = submit_script(real, files, *command, resources={"cpus": 1, "memory": 2 * 10**9}, **more)
    job = real.wait_final(number, 100)
    assert (job.state, job.failure) == (State.SUCCEEDED, None), real.printed(number)
    return number, real.printed(number)


def test_a_plain_script_learns_and_its_weights_are_kept(real: Stage) -> None:
    number, printed = run(real, files_of(EXAMPLES / "plain"), "python", "train.py", "--epochs", "5")
    assert "epoch 5: loss" in printed
    assert "accuracy on 359 test images: 9" in printed
    assert list(outputs(real, number)) == ["digits.pt"]


def test_a_script_with_requirements_finds_them_beside_the_torch_of_the_worker(real: Stage) -> None:
    files = files_of(EXAMPLES / "requirements")
    source = files["barchart/barchart.py"]
    files["wheels/barchart-1.0-py3-none-any.whl"] = wheel_of("barchart", {"barchart.py": source})
    _, printed = run(real, files, environment={"requirements": "requirements.txt"})
    assert "Successfully installed barchart-1.0" in printed
    assert "b ########## 1.00" in printed
    assert "is the worker's own, barchart 1.0 the job's" in printed


def test_a_package_with_data_beside_it_hands_in_what_it_found(real: Stage) -> None:
    number, printed = run(real, files_of(EXAMPLES / "package"), "python", "-m", "spirals")
    assert "of 120 points are told apart" in printed
    result = real.found(number, Result)
    assert result.document["self_reported"] is True
    assert result.accuracy > 0.95
    assert real.found(number, Predictions).count == 120
    assert real.checkpoints(number)[-1].epoch == 5  # of those before it, a slow worker leaves out what it would replace
