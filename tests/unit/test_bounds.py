"""Where the kernel cannot confine jobs they are refused, or run under a banner; never silently."""

from pathlib import Path

import pytest

from stoker.errors import ConfinementUnavailable, InvalidInput
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


def test_no_job_has_more_network_than_the_administrator_allows(tmp_path: Path) -> None:
    closed = Bounds("none")
    with pytest.raises(InvalidInput, match="open is not allowed on this worker"):
        closed.check_network("open")
    closed.check_network("none")
    confinement = closed.confinement(tmp_path, network=True)
    assert confinement is not None
    assert confinement["network"] is False
