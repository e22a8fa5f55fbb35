"""The examples that train run as users' jobs do: on a worker, with an uploaded data set; killed, they go on exactly."""

import io
import os
import random
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cryptography.fernet import Fernet

from stoker.jobs.lifecycle import State
from stoker.jobs.models import Predictions, Result
from stoker.jobs.steering import retry
from stoker.stack.postgres import Postgres
from stoker.workers import processes
from tests.support.own_code import outputs, store_code, store_dataset, submit_script
from tests.support.pictures import write_pictures
from tests.support.waiting import wait_for
from tests.support.workers import Stage, stage

EXAMPLES = Path(__file__).parents[2] / "examples"
RESOURCES = {"cpus": 1, "memory": 3 * 10**9}


@pytest.fixture(scope="module")
def real(postgres: Postgres, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A stage with a worker for programs of their own, and pictures of three classes as a data set."""
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder, {"train": 80, "test": 10}, ("cat", "dog", "ship"))
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}
    with stage(postgres, template_database) as made:
        store_dataset(made, "pictures", files)
        made.started("examples", secret_key=Fernet.generate_key().decode())
        yield made


def begin(real: Stage) -> int:
    """Submit the script that can be interrupted: 12 epochs of 15 steps, to be not over first; a checkpoint every 4."""
    source = (EXAMPLES / "resumable.py").read_text()
    command = ("python", "train.py", "--epochs", "12")
    more: Any = {"datasets": ["pictures"], "checkpoint": {"every": "4 steps"}, "resources": RESOURCES}
    return submit_script(real, source, *command, **more)


def kill_after(real: Stage, number: int, attempt: int, checkpoints: int) -> None:
    """SIGKILL to the script itself, once its present attempt has stored so many checkpoints."""
    before = len(real.checkpoints(number))
    wait_for(lambda: len(real.checkpoints(number)) >= before + checkpoints, 60, "checkpoints")
    entries = [Path(f"/proc/{pid}") for pid in processes.descendants(real.workers[0].pid)]
    (pid,) = (
        int(entry.name)
        for entry in entries
        if "train.py" in command_of(entry) and variable(entry, "STOKER_JOB") == str(number)
    )
    assert variable(Path(f"/proc/{pid}"), "STOKER_ATTEMPT") == str(attempt)
    os.kill(pid, signal.SIGKILL)
    job = real.wait_final(number)
    assert (job.state, (job.failure or {}).get("class")) == (State.FAILED, "signal")
    with real.factory() as session:
        retry(session, number, actor="ada")
        session.commit()


def command_of(entry: Path) -> str:
    """The command line of a process, while there is one."""
    try:
        return (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def variable(entry: Path, name: str) -> str:
    """A variable of a process's environment."""
    try:
        found = (entry / "environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    return next((one.decode().partition("=")[2] for one in found if one.startswith(f"{name}=".encode())), "")


@pytest.mark.timeout(300)  # four starts of torch, on a machine that may be busy
def test_the_resumable_script_is_killed_twice_and_ends_bit_for_bit_as_if_it_had_not(real: Stage) -> None:
    whole, broken = begin(real), begin(real)
    dice = random.Random(2)
    for attempt in (1, 2):
        kill_after(real, broken, attempt, dice.randint(1, 4))
    for number in (whole, broken):
        job = real.wait_final(number, 120)
        assert job.state == State.SUCCEEDED, real.printed(number)
    begun = [int(step) for step in re.findall(r"begins at step (\d+)", real.printed(broken))]
    assert len(begun) == 3
    assert 0 == begun[0] < begun[1] < begun[2] < 180
    assert real.found(broken, Predictions).packed == real.found(whole, Predictions).packed
    assert real.found(broken, Result).document == real.found(whole, Result).document
    kept = [torch.load(io.BytesIO(outputs(real, number)["weights.pt"])) for number in (whole, broken)]
    assert all(torch.equal(value, kept[1][name]) for name, value in kept[0].items())


def test_the_notebook_of_the_tutorial_runs_and_its_executed_copy_is_kept(real: Stage) -> None:
    code = store_code(real, {"tutorial.ipynb": (EXAMPLES / "tutorial.ipynb").read_bytes()})
    parameters = {"epochs": 1, "batch_size": 8}
    number = real.submit(
        kind="notebook",
        train=None,
        notebook={"code": code, "path": "tutorial.ipynb", "parameters": parameters},
        datasets=["pictures"],
        resources=RESOURCES,
    )
    job = real.wait_final(number, 110)
    assert job.state == State.SUCCEEDED, real.printed(number)
    assert "Accuracy of the network on the 30 test images" in real.printed(number)
    assert "cell 3 of 11: import matplotlib.pyplot as plt" in real.printed(number)
    result = real.found(number, Result).document
    assert (result["classes"], result["test_images"]) == (["cat", "dog", "ship"], 30)
    left = outputs(real, number)
    assert set(left) == {"tutorial.ipynb", "cifar_net.pth"}
    executed = left["tutorial.ipynb"].decode()
    assert '"image/png"' in executed
    assert "# Parameters\\n" in executed
    (attempt,) = real.attempts(number)
    assert attempt.progress is not None
    assert (attempt.progress["cell"]["index"], attempt.progress["cell"]["count"]) == (11, 11)
