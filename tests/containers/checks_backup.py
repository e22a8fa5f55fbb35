"""A backup, and another installation that is filled from it."""

from tests.containers.installation import Installation


def restored(stack: Installation, empty: Installation) -> None:
    """An installation restored from a backup has the same jobs, results, predictions and users."""
    backup = stack.folder / "backup.dump"
    token = stack.token
    stack.script("backup.sh", str(backup))
    assert backup.stat().st_mode & 0o077 == 0, "others may read it"
    empty.script("restore.sh", str(backup))
    empty.script("up.sh", seconds=600)
    with stack.client(token) as before, empty.client(token) as after:
        number = next(iter(before.jobs(state="succeeded", name="first"))).number
        old, new = before.job(number), after.job(number)
        assert new.result().accuracy == old.result().accuracy
        assert list(new.predictions()) == list(old.predictions())
    again = empty.script("restore.sh", str(backup), check=False)
    assert (again.returncode, "not empty" in again.stderr) == (2, True)
