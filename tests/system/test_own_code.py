"""A team's own scripts on a real worker: started, watched, ended, and what they leave. Without torch: quick."""

from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.fernet import Fernet

from stoker.jobs.lifecycle import Outcome, State
from stoker.jobs.models import Result
from stoker.jobs.vault import Vault
from stoker.stack.postgres import Postgres
from tests.support.own_code import Files, failure_of, outputs, store_dataset, store_secret, submit_script, succeeded
from tests.support.waiting import wait_for
from tests.support.workers import Stage, is_gone, stage

KEY = Fernet.generate_key().decode()


@pytest.fixture(scope="module")
def own(postgres: Postgres, template_database: str) -> Iterator[Stage]:
    """A stage with one worker."""
    with stage(postgres, template_database) as made:
        made.started("own", secret_key=KEY, cancel_grace_seconds=0.3, environment_bytes=50 * 10**6)
        yield made


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
