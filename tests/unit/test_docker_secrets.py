"""docker/secrets.sh: what is missing is made, what is there is never overwritten. Root's part is a stand-in."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALL = {
    "broker_url",
    "database_url",
    "flower_auth",
    "metrics_token",
    "postgres_password",
    "redis_acl",
    "redis_password",
    "secret_key",
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder of an installation, and on PATH an ``id`` that says root and a ``chown`` that does nothing."""
    (tmp_path / "docker").mkdir()
    shutil.copy(ROOT / "docker/secrets.sh", tmp_path / "docker")
    _say_id(tmp_path, 0)
    program = tmp_path / "bin/chown"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return tmp_path


def _say_id(home: Path, uid: int) -> None:
    program = home / "bin/id"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\necho {uid}\n")
    program.chmod(0o755)


def _make(home: Path) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"PATH": f"{home / 'bin'}:{os.environ['PATH']}"}
    command = ["sh", str(home / "docker/secrets.sh")]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=30)


def _kept(home: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (home / "secrets").iterdir()}


def test_the_first_run_makes_all_of_them_readable_to_their_user_only(home: Path) -> None:
    assert "made ./secrets" in _make(home).stdout
    assert set(_kept(home)) == ALL
    assert {path.stat().st_mode & 0o777 for path in (home / "secrets").iterdir()} == {0o400}
    assert _kept(home)["broker_url"] == f"redis://stoker:{_kept(home)['redis_password']}@redis:6379/0"


def test_an_older_installation_gets_the_new_ones_and_keeps_the_others(home: Path) -> None:
    _make(home)
    for name in ("secret_key", "metrics_token"):
        (home / "secrets" / name).unlink()
    old = _kept(home)
    assert _make(home).stdout.startswith("made in ./secrets: secret_key metrics_token; what was there is as it was\n")
    assert set(_kept(home)) == ALL
    assert _kept(home) | old == _kept(home)


def test_a_second_run_changes_nothing_and_needs_no_root(home: Path) -> None:
    _make(home)
    before = _kept(home)
    _say_id(home, 1000)
    done = _make(home)
    assert (done.returncode, done.stdout, _kept(home)) == (0, "", before)


def test_a_password_that_volumes_know_is_not_made_anew(home: Path) -> None:
    _make(home)
    (home / "secrets/postgres_password").unlink()
    (home / "secrets/metrics_token").unlink()
    _make(home)
    assert set(_kept(home)) == ALL - {"postgres_password"}


def test_without_root_it_says_why_it_needs_it(home: Path) -> None:
    _say_id(home, 1000)
    done = _make(home)
    assert (done.returncode, done.stderr.count("\n"), (home / "secrets").exists()) == (2, 1, False)
    assert "run this as root" in done.stderr
