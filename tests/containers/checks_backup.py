"""A backup that is taken while a job runs, and another installation that is filled from it."""

from stoker.client.client import Client
from tests.containers.commands import run
from tests.containers.installation import Installation
from tests.containers.jobs import OWN_CODE, SCRIPT, SECONDS, endless, wait_resumed

RUNNING = "runs on"
SECRET = "KEPT_IN_THE_BACKUP"
SAY_SECRET = f"import os; print(os.environ['{SECRET}'].swapcase())"  # turned: in a log the value itself is masked


def backed_up(stack: Installation, empty: Installation) -> None:
    """A backup is taken while a job runs, and only its owner may read it; the secrets are kept with it."""
    backup = empty.folder / "stoker.dump"
    with stack.client() as client:
        client.set_secret(SECRET, "open sesame")
        with endless(stack, client, name=RUNNING):
            stack.script("backup.sh", str(backup))
    assert backup.stat().st_mode & 0o077 == 0, "others may read it"
    run(["cp", "-a", stack.folder / "secrets", empty.folder])


def restored(stack: Installation, empty: Installation) -> None:
    """An installation restored from a backup has the same jobs, results, predictions, secrets and users; jobs go on."""
    backup = empty.folder / "stoker.dump"
    empty.script("restore.sh", str(backup))
    empty.script("up.sh", seconds=600)
    with stack.client() as before, empty.client(stack.token) as after:
        _same_results(before, after)
        (resumed,) = after.jobs(name=RUNNING)
        wait_resumed(empty, after.job(resumed.number))
        after.job(resumed.number).cancel()
        job = after.run(["python", "-c", SAY_SECRET], code=OWN_CODE, name="secret", secrets=[SECRET], **SCRIPT)
        assert job.wait(timeout=SECONDS) == "succeeded", list(job.logs(tail=20))
        assert "OPEN SESAME" in "\n".join(job.logs())
    again = empty.script("restore.sh", str(backup), check=False)
    assert (again.returncode, "not empty" in again.stderr) == (2, True)


def _same_results(before: Client, after: Client) -> None:
    number = next(iter(before.jobs(state="succeeded", name="first"))).number
    old, new = before.job(number), after.job(number)
    assert new.result().accuracy == old.result().accuracy
    assert list(new.predictions()) == list(old.predictions())


TAKEN, FILLED = (backed_up,), (restored,)
CHECKS = TAKEN + FILLED
