"""A secret of a job is shown nowhere by Stoker, whatever the job's program does with it; its own files are its own."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import select

from stoker.jobs.lifecycle import State
from stoker.jobs.models import Checkpoint, Event, MetricSegment, Predictions, Result
from stoker.jobs.vault import Vault
from stoker.stack.postgres import Postgres
from tests.support.own_code import SMALL, outputs, store_code, store_secret, submit_script
from tests.support.workers import Stage, stage

KEY = Fernet.generate_key().decode()
SECRET = "swordfish-of-ada"
MORE: dict[str, Any] = {"secrets": ["TOKEN"], "network": "none"}


@pytest.fixture(scope="module")
def keeping(postgres: Postgres, template_database: str) -> Iterator[Stage]:
    """A stage with one worker, and a secret of the team."""
    with stage(postgres, template_database) as made:
        made.started("own", secret_key=KEY)
        store_secret(made, Vault(KEY), "TOKEN", SECRET)
        yield made


TELLS_ALL = """
import os, stoker
secret = os.environ["TOKEN"]
run = stoker.current_run()
run.tell("note", text=f"a note of {secret}")
run.tell("cell", index=1, count=1, source=f"login({secret!r})")
run.log({secret: 1.0, "loss": 0.5})
run.resume(count=0)
run.checkpoint(**{secret: 1.0, "accuracy": 0.5})
run.predictions(labels=[0, 1], predicted=[0, 1], classes=[secret, "b"])
run.result(said=f"it is {secret}", deep=[{secret: [secret]}])
open(os.path.join(os.environ["STOKER_OUTPUT"], "own.txt"), "w").write(secret)
"""


def test_what_a_script_says_is_kept_without_its_secrets(keeping: Stage) -> None:
    number = submit_script(keeping, TELLS_ALL, **MORE)
    job = keeping.wait_final(number)
    assert (job.state, job.failure) == (State.SUCCEEDED, None), keeping.printed(number)
    with keeping.factory() as session:
        told = session.scalars(select(Event.reason).where(Event.job_number == number)).all()
        keys = session.scalars(select(MetricSegment.key).where(MetricSegment.job_number == number)).all()
        (checkpoint,) = session.scalars(select(Checkpoint).where(Checkpoint.job_number == number))
        made, found = session.get_one(Predictions, number), session.get_one(Result, number).document
        assert "a note of [secret]" in told
        assert "points of [secret] were dropped: a name that holds a secret is not kept" in told
        assert set(keys) == {"loss", "accuracy"}
        assert checkpoint.metrics["accuracy"] == 0.5
        assert list(made.classes) == ["[secret]", "b"]
        assert (found["said"], found["deep"]) == ("it is [secret]", [{"[secret]": ["[secret]"]}])
        (attempt,) = keeping.attempts(number)
        assert attempt.progress is not None
        assert attempt.progress["cell"]["source"] == "login('[secret]')"
        kept = [told, keys, checkpoint.metrics, made.classes, found, attempt.progress, attempt.software]
    assert SECRET not in json.dumps(kept)
    assert outputs(keeping, number) == {"own.txt": SECRET.encode()}


FAILS = """
import os, stoker
from stoker.training.failure import TrainingFailed
run = stoker.current_run()
raise TrainingFailed("user_error", os.environ["TOKEN"], os.environ["TOKEN"])
"""


@pytest.mark.parametrize(
    "source",
    [
        "import os; raise ValueError(os.environ['TOKEN'])",
        "import os, sys; print(os.environ['TOKEN']); sys.exit(3)",
        FAILS,
        "import os, stoker; run = stoker.current_run(); run.tell('result', path=os.environ['TOKEN'])",
    ],
)
def test_how_a_script_failed_is_told_without_its_secrets(keeping: Stage, source: str) -> None:
    number = submit_script(keeping, source, **MORE)
    job = keeping.wait_final(number)
    assert job.state == State.FAILED
    (attempt,) = keeping.attempts(number)
    told = json.dumps([job.failure, attempt.failure, keeping.printed(number), keeping.notes(number)])
    assert "[secret]" in told
    assert SECRET not in told


def test_the_executed_copy_of_a_notebook_shows_no_secret(keeping: Stage) -> None:
    cells = ["import os\nprint(os.environ['TOKEN'])\nos.environ['TOKEN']", "raise ValueError(os.environ['TOKEN'])"]
    blank: dict[str, Any] = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    written = {"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": [blank | {"source": one} for one in cells]}
    code = store_code(keeping, {"a.ipynb": json.dumps(written)})
    notebook = {"code": code, "path": "a.ipynb"}
    number = keeping.submit(kind="notebook", train=None, notebook=notebook, resources=SMALL, **MORE)
    job = keeping.wait_final(number)
    assert job.failure is not None
    assert "ValueError: [secret]" in job.failure["evidence"]
    copy = outputs(keeping, number)["a.ipynb"].decode()
    first, second = json.loads(copy)["cells"]
    assert [one["output_type"] for one in first["outputs"]] == ["stream", "execute_result"]
    assert second["outputs"][0]["evalue"] == "[secret]"
    assert SECRET not in copy + json.dumps(job.failure)
