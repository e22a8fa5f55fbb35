"""What own code runs with: pip, interpreters, packages."""

import os
from pathlib import Path
from typing import cast

import pytest

from stoker.settings import Settings
from stoker.training.failure import TrainingFailed
from stoker.workers import pip
from stoker.workers.bounds import Bounds
from stoker.workers.environments import Building, Environments
from stoker.workers.interpreters import Interpreter, of_worker
from tests.support.worker_parts import NEVER_STARTED


def test_what_pip_prints_names_no_place_where_packages_are_found() -> None:
    said = (
        "Looking in indexes: https://user:pw@host.lab/simple, https://other\n"
        "Downloading https://host.lab/files/tiny-1.0.whl (3 kB)\n"
        "Processing /opt/wheels/tiny-1.0.whl\n"
        "WARNING: HTTPSConnectionPool(host='host.lab', port=443): Max retries exceeded\n"
        "Successfully installed tiny-1.0\n"
    )
    shown = pip.hide_addresses(said)
    assert "host.lab" not in shown
    assert "pw" not in shown
    assert "/opt" not in shown
    assert "…/tiny-1.0.whl (3 kB)" in shown
    assert "Successfully installed tiny-1.0" in shown


def test_pip_is_told_where_packages_are_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".config/pip").mkdir(parents=True)
    (tmp_path / ".config/pip/pip.conf").write_text("[global]\nfind-links = /opt/wheels\n  file:///srv/simple\n")
    environ = {"HOME": str(tmp_path), "PIP_INDEX_URL": "https://host.lab", "STOKER_DATABASE_URL": "secret"}
    told = pip.environment_of(environ)
    assert told == {"PIP_INDEX_URL": "https://host.lab", "PIP_CONFIG_FILE": str(tmp_path / ".config/pip/pip.conf")}
    read = pip.package_sources(told)
    assert {"/opt/wheels", "/srv/simple", told["PIP_CONFIG_FILE"]} <= set(read)
    assert not [path for path in read if "host.lab" in path]


def test_what_an_installation_made_a_link_of_is_not_opened_to_its_job(tmp_path: Path) -> None:
    packages = tmp_path / "environment/lib/python/site-packages"
    packages.parent.mkdir(parents=True)
    packages.symlink_to("/")
    layered = Interpreter(tmp_path / "environment/bin/python", (packages, *of_worker().packages))
    opened = [folder.resolve() for folder in layered.folders]
    assert opened == [tmp_path / "environment", *(folder.resolve() for folder in of_worker().packages)]


def test_packages_are_known_by_names_and_versions_that_can_be_stored(tmp_path: Path) -> None:
    for name in (b"fine-1.0+cpu.dist-info", b"bad-\x80.dist-info", b"worse-1\n2.dist-info"):
        (tmp_path / os.fsdecode(name)).mkdir()
    assert Interpreter(tmp_path / "bin/python", (tmp_path,)).installed() == {"fine": "1.0+cpu"}


def test_an_administrator_forbids_environments() -> None:
    forbidding = Environments(Settings(environments="forbidden"), NEVER_STARTED, {}, Bounds("open"))
    unread = cast("Building", None)  # it does not come to that
    with pytest.raises(TrainingFailed, match="STOKER_ENVIRONMENTS=forbidden"), forbidding.held(unread):
        pass


def test_the_workers_python_knows_what_is_installed(tmp_path: Path) -> None:
    worker = of_worker()
    assert worker.installed()["pytest"] == pytest.__version__
    assert worker.command(["python3", "-c", "x"], tmp_path)[1] == [str(worker.python), "-c", "x"]
    assert worker.command(["sh", "-c", "x"], tmp_path)[0].endswith("/sh")
    with pytest.raises(TrainingFailed, match=r"no command nothing\.sh"):
        worker.command(["nothing.sh"], tmp_path)
