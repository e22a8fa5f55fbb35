"""Environments that are made for scripts, on a real worker. Without torch: quick."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from stoker.jobs.lifecycle import State
from stoker.stack.postgres import Postgres
from tests.support.own_code import (
    Files,
    failure_of,
    submit_script,
    succeeded,
    wheel_of,
)
from tests.support.waiting import wait_for
from tests.support.workers import Stage, stage

KEY = Fernet.generate_key().decode()


@pytest.fixture(scope="module")
def own(postgres: Postgres, template_database: str) -> Iterator[Stage]:
    """A stage with one worker."""
    with stage(postgres, template_database) as made:
        made.started("own", secret_key=KEY, cancel_grace_seconds=0.3, environment_bytes=50 * 10**6)
        yield made


def test_an_environment_is_made_once_and_layered_on_the_worker(own: Stage) -> None:
    files: Files = {
        "train.py": "import tiny, sys; print('tiny', tiny.VALUE, sys.prefix); import importlib.util as u\n"
        "print('torch', u.find_spec('torch').origin)",
        "requirements.txt": "./wheels/tiny-1.0-py3-none-any.whl\n",
        "wheels/tiny-1.0-py3-none-any.whl": wheel_of("tiny", {"tiny.py": "VALUE = 42"}),
    }
    wanted: Any = {"environment": {"requirements": "requirements.txt"}}
    first = submit_script(own, files, **wanted)
    printed = succeeded(own, first)
    assert f"tiny 42 {own.home}/cache/environments/" in printed
    assert "Successfully installed tiny-1.0" in printed
    assert str(Path(os.__file__).parent.parent) not in printed.partition("torch ")[2]
    (attempt,) = own.attempts(first)
    assert attempt.software is not None
    assert attempt.software["packages"]["tiny"] == "1.0"
    again = submit_script(own, files, **wanted)
    assert "installed" not in succeeded(own, again)


def test_code_does_not_pass_for_pip_where_the_environment_is_shared(own: Stage) -> None:
    hijack = "print('HIJACKED', flush=True)"
    files = {"train.py": "", "requirements.txt": "numpy\n", "pip.py": hijack, "logging.py": hijack}
    printed = succeeded(own, submit_script(own, files, environment={"requirements": "requirements.txt"}))
    assert "already satisfied: numpy" in printed
    assert "HIJACKED" not in printed


def test_what_a_package_runs_at_its_installation_reaches_nothing_that_the_worker_opens(own: Stage) -> None:
    backend = (
        "import os, zipfile\n"
        "def build_wheel(folder, *_):\n"
        "    reached = []\n"
        "    for name in ('output.log', 'run.json', 'start.json', 'output/x', 'home/x'):\n"
        "        try:\n"
        "            os.symlink('/etc/passwd', f'../../{name}')\n"
        "            reached.append(name)\n"
        "        except PermissionError:\n"
        "            pass\n"
        "    with zipfile.ZipFile(f'{folder}/hostile-1.0-py3-none-any.whl', 'w') as wheel:\n"
        "        wheel.writestr('hostile.py', f'REACHED = {reached}')\n"
        "        about = 'Metadata-Version: 2.1\\nName: hostile\\nVersion: 1.0\\n'\n"
        "        wheel.writestr('hostile-1.0.dist-info/METADATA', about)\n"
        "        wheel.writestr('hostile-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\\nTag: py3-none-any\\n')\n"
        "        wheel.writestr('hostile-1.0.dist-info/RECORD', '')\n"
        "    return 'hostile-1.0-py3-none-any.whl'\n"
    )
    project = '[build-system]\nrequires = []\nbuild-backend = "hostile"\nbackend-path = ["."]\n'
    files = {"train.py": "import hostile; print('reached', hostile.REACHED)", "requirements.txt": "./hostile\n"}
    files |= {"hostile/pyproject.toml": project, "hostile/hostile.py": backend}
    printed = succeeded(own, submit_script(own, files, environment={"requirements": "requirements.txt"}))
    assert "reached []" in printed


def test_an_environment_that_cannot_be_made_says_what_pip_said(own: Stage) -> None:
    files = {"train.py": "", "requirements.txt": "./wheels/missing-1.0-py3-none-any.whl\n"}
    failure = failure_of(own, submit_script(own, files, environment={"requirements": "requirements.txt"}))
    assert failure["class"] == "environment_failed"
    assert "missing-1.0-py3-none-any.whl" in failure["evidence"]
    failure = failure_of(own, submit_script(own, files, environment={"requirements": "other.txt"}))
    assert failure["class"] == "environment_failed"
    assert "other.txt" in failure["evidence"]


def test_an_environment_that_grows_beyond_its_limit_is_not_kept(own: Stage) -> None:
    large = wheel_of("large", {"large.bin": bytes(60 * 10**6)})
    files: Files = {
        "train.py": "",
        "requirements.txt": "./large-1.0-py3-none-any.whl",
        "large-1.0-py3-none-any.whl": large,
    }
    failure = failure_of(own, submit_script(own, files, environment={"requirements": "requirements.txt"}))
    assert failure["class"] == "environment_failed"
    assert "more than 50,000,000 bytes" in failure["evidence"]


def test_what_is_built_leaves_no_more_beside_the_environment_than_in_it(own: Stage) -> None:
    fills = "import os, time\nopen(os.environ['TMPDIR'] + '/x', 'wb').write(bytes(60_000_000))\ntime.sleep(3600)\n"
    backend = '[build-system]\nrequires = []\nbuild-backend = "fills"\nbackend-path = ["."]\n'
    files = {"train.py": "", "requirements.txt": "./fills\n"}
    files |= {"fills/pyproject.toml": backend, "fills/fills.py": fills}
    failure = failure_of(own, submit_script(own, files, environment={"requirements": "requirements.txt"}))
    assert failure["class"] == "environment_failed"
    assert "more than 50,000,000 bytes" in failure["evidence"]


def test_what_is_built_holds_no_more_memory_than_its_job_may(own: Stage) -> None:
    hoards = "import time\nhoard = b'x' * 500_000_000\ntime.sleep(3600)\n"
    backend = '[build-system]\nrequires = []\nbuild-backend = "hoards"\nbackend-path = ["."]\n'
    files = {"train.py": "", "requirements.txt": "./hoards\n"}
    files |= {"hoards/pyproject.toml": backend, "hoards/hoards.py": hoards}
    wanted: Any = {"environment": {"requirements": "requirements.txt"}, "resources": {"memory": 3 * 10**8}}
    failure = failure_of(own, submit_script(own, files, **wanted))
    assert failure["class"] == "environment_failed"
    assert "resources.memory is 0.30 GB" in failure["evidence"]


def test_a_cancel_ends_the_making_of_an_environment_at_once(own: Stage) -> None:
    hangs = "import time\nprint('building', flush=True)\ntime.sleep(3600)\n"
    backend = '[build-system]\nrequires = []\nbuild-backend = "slow"\nbackend-path = ["."]\n'
    files = {"train.py": "", "requirements.txt": "./slow\n", "slow/pyproject.toml": backend, "slow/slow.py": hangs}
    number = submit_script(own, files, environment={"requirements": "requirements.txt"})
    wait_for(lambda: "Processing" in own.printed(number), 30, "pip at work")
    assert own.attempts(number)[0].progress["phase"] == "environment"  # type: ignore[index]
    own.cancel(number)
    assert own.wait_final(number, 20).state == State.CANCELLED
