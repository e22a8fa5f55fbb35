"""Where the kernel cannot confine jobs they are refused, or run under a banner; never silently."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stoker.client import checks
from stoker.errors import ConfinementUnavailable, InvalidInput
from stoker.jobs.refusals import refuse_network
from stoker.settings import Settings
from stoker.workers import sandbox
from stoker.workers.bounds import Bounds


def test_a_kernel_that_cannot_confine_is_refused_unless_the_administrator_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sandbox, "available", lambda: "this kernel has no Landlock")
    with pytest.raises(ConfinementUnavailable, match="no Landlock; STOKER_CONFINEMENT=best-effort"):
        Bounds.of(Settings(home=tmp_path))
    allowed = Bounds.of(Settings(home=tmp_path, confinement="best-effort"))
    assert allowed.banner == "jobs are NOT confined here: this kernel has no Landlock"
    assert allowed.confinement(tmp_path) is None


def test_what_an_older_kernel_cannot_do_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for version, words in ((5, "can send signals to each other"), (6, "")):
        monkeypatch.setattr(sandbox, "available", lambda version=version: version)
        assert words in Bounds.of(Settings(home=tmp_path)).banner
    assert Bounds.of(Settings(home=tmp_path)).banner == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root's jobs could stay root")
def test_a_root_that_cannot_change_users_says_so() -> None:
    command = ["setpriv", "--bounding-set=-setuid", sys.executable, "-c"]
    told = subprocess.run(
        [*command, "from stoker.workers.bounds import Bounds; print(Bounds('none').banner)"],
        capture_output=True,
        check=True,
        text=True,
    )
    assert "jobs run as root itself" in told.stdout
    assert "CAP_SETUID is missing" in told.stdout


def test_no_job_has_more_network_than_the_administrator_allows(tmp_path: Path) -> None:
    closed = Bounds("none")
    confinement = closed.confinement(tmp_path, network=True)
    assert confinement is not None
    assert confinement["network"] is False


@pytest.mark.parametrize(
    ("able", "wanted", "grade", "words"),
    [
        (6, "required", "ok", "Landlock 6"),
        (5, "required", "note", "signals to each other"),
        ("no Landlock", "required", "problem", "no worker starts here: no Landlock"),
        ("no Landlock", "best-effort", "note", "everything that the worker's user may do"),
    ],
)
def test_the_doctor_says_what_the_kernel_can(
    monkeypatch: pytest.MonkeyPatch, able: int | str, wanted: str, grade: str, words: str
) -> None:
    monkeypatch.setattr(sandbox, "available", lambda: able)
    monkeypatch.setenv("STOKER_CONFINEMENT", wanted)
    (finding,) = checks.confinement()
    assert finding.grade == grade
    assert words in finding.found
    assert bool(finding.fix) == (grade != "ok")


def test_more_network_than_the_administrator_allows_is_refused() -> None:
    with pytest.raises(InvalidInput, match="open is not allowed here: STOKER_NETWORK is none"):
        refuse_network("open", "none")
    for asked, allowed in (("none", "none"), ("none", "open"), ("open", "open")):
        refuse_network(asked, allowed)
