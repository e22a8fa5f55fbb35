"""A team's own scripts on a real worker: started, watched, ended, and what they leave. Without torch: quick."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from stoker.jobs.lifecycle import Outcome, State
from stoker.jobs.models import Result
from stoker.jobs.vault import Vault
from stoker.stack.postgres import Postgres
from tests.support.own_code import Files, outputs, store_dataset, store_secret, submit_script, wheel_of
from tests.support.waiting import wait_for
from tests.support.workers import Stage, is_gone, stage

KEY = Fernet.generate_key().decode()


@pytest.fixture(scope="module")
def own(postgres: Postgres, template_database: str) -> Iterator[Stage]:
    """A stage with one worker."""
    with stage(postgres, template_database) as made:
        made.started("own", secret_key=KEY, cancel_grace_seconds=0.3, environment_bytes=50 * 10**6)
        yield made


def failure_of(own: Stage, number: int) -> dict[str, str]:
    """How a job failed."""
    job = own.wait_final(number)
    assert job.state == State.FAILED
    assert job.failure is not None
    return job.failure


def succeeded(own: Stage, number: int) -> str:
    """Its log, once it has succeeded."""
    job = own.wait_final(number)
    assert (job.state, job.failure) == (State.SUCCEEDED, None), own.printed(number)
    return own.printed(number)


WHAT_A_SCRIPT_SEES = """
import json, os, sys, pathlib, helper
from stoker.errors import InvalidInput
pathlib.Path("written.txt").write_text("in the working directory")
out = pathlib.Path(os.environ["STOKER_OUTPUT"])
(out / "deep").mkdir()
(out / "deep" / "model.bin").write_bytes(bytes(1000))
(out / "link").symlink_to("/etc/passwd")
os.mkfifo(out / "pipe")
(out / "line\\nbreak").write_text("x")
seen = pathlib.Path(os.environ["STOKER_DATA"], "pets")
names = sorted(str(path.relative_to(seen)) for path in seen.rglob("*.txt"))
print(json.dumps({
    "arguments": sys.argv[1:], "data": open("data/rows.csv").read(), "helper": helper.NAME,
    "pets": names, "first": (seen / names[0]).read_text(),
    "heavy": [name for name in ("torch", "celery") if name in sys.modules],
    "variables": {name: os.environ.get(name, "") for name in ("MODE", "STOKER_JOB", "STOKER_ATTEMPT", "HOME", "PWD")},
    "secret": os.environ["TOKEN"], "stoker": [name for name in os.environ if "DATABASE" in name or "BROKER" in name],
}))
"""


def test_a_script_finds_its_code_data_variables_and_secrets_and_what_it_leaves_is_kept(own: Stage) -> None:
    store_dataset(own, "pets", {"cat/1.txt": "meow", "dog/1.txt": "woof"})
    store_secret(own, Vault(KEY), "TOKEN", "swordfish-of-ada")
    files: Files = {"train.py": WHAT_A_SCRIPT_SEES, "helper.py": "NAME = 'helps'", "data/rows.csv": "1,2"}
    more: Any = {"datasets": ["pets"], "secrets": ["TOKEN"], "environment": {"variables": {"MODE": "fast"}}}
    number = submit_script(own, files, "python", "train.py", "--lr", "0.1", **more)
    printed = succeeded(own, number)
    assert '"arguments": ["--lr", "0.1"], "data": "1,2", "helper": "helps"' in printed
    assert '"pets": ["cat/1.txt", "dog/1.txt"], "first": "meow", "heavy": []' in printed
    assert f'"MODE": "fast", "STOKER_JOB": "{number}", "STOKER_ATTEMPT": "1"' in printed
    assert '"secret": "[secret]", "stoker": []' in printed
    assert "swordfish" not in printed
    assert outputs(own, number) == {"deep/model.bin": bytes(1000)}
    notes = "\n".join(own.notes(number))
    assert "the output 'link' was not kept" in notes
    assert "the output 'pipe' was not kept" in notes
    assert "line\\nbreak" in notes
    assert own.found(number, Result) is None


def test_what_was_used_is_written_down(own: Stage) -> None:
    number = submit_script(own, "sum(range(3_000_000))")
    succeeded(own, number)
    (attempt,) = own.attempts(number)
    assert attempt.cpu_seconds is not None
    assert attempt.cpu_seconds > 0.01
    assert attempt.software is not None
    assert attempt.software["packages"]["torch"] == attempt.software["torch"]
    assert attempt.software["python"].startswith("3.")
    assert attempt.software["device"]


@pytest.mark.parametrize(
    ("source", "command", "klass", "words"),
    [
        ("import nosuchpackage.part", (), "import_error", ("nosuchpackage", "environment.requirements")),
        ("open('rows.csv')", (), "data_missing", ("rows.csv", ".gitignore")),
        ("print('before')\nraise ValueError('a\\nb')", (), "user_error", ("line 2, in <module>", "traceback")),
        ("def f(:\n  pass", (), "user_error", ("SyntaxError", "mend the line")),
        ("import os; os.abort()", (), "signal", ("SIGABRT", "")),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", (), "signal", ("SIGKILL", "")),
        ("raise MemoryError", (), "host_out_of_memory", ("MemoryError", "resources.memory")),
        ("import sys; print('the last words'); sys.exit(3)", (), "user_error", ("exit code 3", "")),
        ("open('x', 'wb').truncate(10**11)", (), "user_error", ("File too large", "smaller files")),
        ("", ("python", "missing.py"), "data_missing", ("missing.py", "")),
        ("", ("python2.7", "train.py"), "user_error", ("python2.7", "write python")),
        ("", ("./train.py",), "user_error", ("not executable", "python ./train.py")),
        ("", ("nosuchprogram",), "user_error", ("nosuchprogram", "")),
        ("", ("bash", "-c", "kill -9 $$"), "signal", ("SIGKILL", "")),
        ("", ("bash", "-c", "python -c 'import os; os.abort()'; exit $?"), "signal", ("exit code 134", "")),
    ],
)
def test_each_way_of_failing_has_its_class_its_evidence_and_a_fix(
    own: Stage, source: str, command: tuple[str, ...], klass: str, words: tuple[str, str]
) -> None:
    failure = failure_of(own, submit_script(own, source, *command))
    assert failure["class"] == klass
    assert words[0] in failure["evidence"]
    assert words[1] in failure["fix"]


def test_a_program_of_the_code_runs_by_its_own_first_line(own: Stage) -> None:
    files = {"go": '#!/bin/sh\nexec python inner.py "$@"\n', "inner.py": "import sys; print('inner', sys.argv[1])"}
    assert "inner now" in succeeded(own, submit_script(own, files, "./go", "now", executable=("go",)))
    broken = submit_script(own, {"go": "no first line", "x": ""}, "./go", executable=("go",))
    assert "Exec format error" in failure_of(own, broken)["evidence"]


FORGETFUL = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sleeps = "import os, time; print('child', os.getpid(), flush=True); time.sleep(3600)"
child = subprocess.Popen([sys.executable, "-c", sleeps], stdout=subprocess.PIPE, start_new_session=True)
print(child.stdout.readline().decode(), flush=True)
"""


def child_of(own: Stage, number: int) -> int:
    """The child that a forgetful script has started, once it is there."""
    wait_for(lambda: "child " in own.printed(number), 20, "its child")
    return int(own.printed(number).partition("child ")[2].split()[0])


def test_children_that_a_script_forgets_end_with_it(own: Stage) -> None:
    number = submit_script(own, FORGETFUL)
    succeeded(own, number)
    assert is_gone(child_of(own, number))


def test_a_script_that_ignores_sigterm_is_cancelled_all_the_same(own: Stage) -> None:
    number = submit_script(own, FORGETFUL + "time.sleep(3600)")
    child = child_of(own, number)
    own.cancel(number)
    assert own.wait_final(number, 20).state == State.CANCELLED
    assert is_gone(child)


def test_a_script_that_hangs_at_its_exit_is_found_stalled(own: Stage) -> None:
    hangs = "import threading\nprint('done')\nthreading.Thread(target=threading.Event().wait).start()"
    number = submit_script(own, hangs, stall_timeout="3s")
    assert failure_of(own, number)["class"] == "stalled"
    assert "most recent call first" in own.printed(number)  # the stacks that its failure speaks of


def test_a_silent_script_that_computes_is_not_stalled(own: Stage) -> None:
    computes = "import time\nwhile time.process_time() < 2.5: pass"
    succeeded(own, submit_script(own, computes, stall_timeout="2s"))


def test_more_output_than_is_kept_harms_nobody(own: Stage) -> None:
    number = submit_script(
        own, "import os\nfor _ in range(60): os.write(1, b'y' * 1_000_000)\nprint('\\nthe last line')"
    )
    printed = succeeded(own, number)
    assert "bytes left out]" in printed
    assert "the last line" in printed
    assert len(printed) < 12 * 10**6


def test_outputs_are_kept_of_a_script_that_fails_too(own: Stage) -> None:
    leaves = "import os, pathlib\npathlib.Path(os.environ['STOKER_OUTPUT'], 'a.txt').write_text('kept')\n"
    failed = submit_script(own, leaves + "raise SystemExit(1)")
    assert failure_of(own, failed)["class"] == "user_error"
    assert outputs(own, failed) == {"a.txt": b"kept"}


def test_a_preempted_script_without_checkpoints_begins_again(own: Stage) -> None:
    source = (
        "import os, pathlib, time\n"
        "again = os.environ['STOKER_ATTEMPT'] == '2'\n"
        "pathlib.Path(os.environ['STOKER_OUTPUT'], 'first.txt' if not again else 'second.txt').write_text('x')\n"
        "print('attempt', os.environ['STOKER_ATTEMPT'], flush=True)\n"
        "again or time.sleep(3600)\n"
    )
    number = submit_script(own, source)
    wait_for(lambda: "attempt 1" in own.printed(number), 20, "the first attempt")
    own.preempt(number)
    assert "attempt 2" in succeeded(own, number)
    assert [one.outcome for one in own.attempts(number)] == [Outcome.PREEMPTED, Outcome.SUCCEEDED]
    assert set(outputs(own, number)) == {"first.txt", "second.txt"}


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
