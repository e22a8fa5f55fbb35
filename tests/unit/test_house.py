"""The house stands as it says: folders, links and the package map agree, and what shall be light is light."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())
PARTS = {  # import name -> folder, without stoker itself
    name: folder for name, folder in CONFIG["tool"]["setuptools"]["package-dir"].items() if name != "stoker"
}
HEAVY = ("torch", "fastapi", "celery", "sqlalchemy")


def test_every_part_is_packaged_from_its_own_folder() -> None:
    assert set(CONFIG["tool"]["setuptools"]["packages"]) == {"stoker", *PARTS}
    for name, folder in PARTS.items():
        assert name == f"stoker.{folder.replace('/', '.')}"
        assert (ROOT / folder / "__init__.py").is_file()


def test_every_part_has_one_relative_link_and_no_other_exists() -> None:
    links = {link.name: link.readlink() for link in (ROOT / "stoker").iterdir() if link.is_symlink()}
    assert links == {folder: Path("..") / folder for folder in PARTS.values() if "/" not in folder}


def test_parts_are_flat() -> None:
    nested = {str(path.parent.relative_to(ROOT)) for folder in PARTS.values() for path in (ROOT / folder).rglob("*.py")}
    assert nested == {*PARTS.values(), "training/startup"}  # no package: what interpreters of jobs start with


def test_the_bare_names_are_banned_and_the_links_not_checked_twice() -> None:
    parts = {folder for folder in PARTS.values() if "/" not in folder}
    assert set(CONFIG["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]) == parts
    assert set(CONFIG["tool"]["ruff"]["extend-exclude"]) == {f"stoker/{part}" for part in parts}


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import stoker", (*HEAVY, "httpx", "pydantic")),
        ("import stoker.client.cli", (*HEAVY, "httpx", "pydantic", "rich")),
        ("import stoker; stoker.Client", HEAVY),
        ("import stoker.client.commands_submit, stoker.client.commands_doctor", HEAVY),
        ("import stoker.api.app", ("torch", "celery")),
        ("import stoker.messages.flower", ("torch", "fastapi", "sqlalchemy")),
        ("import stoker.jobs.dispatcher", ("torch", "fastapi", "celery")),
        ("import stoker.training.config", (*HEAVY, "numpy")),
    ],
)
def test_what_shall_be_light_loads_nothing_heavy(code: str, unwanted: tuple[str, ...]) -> None:
    check = f"{code}; import sys; print(*(name for name in {unwanted!r} if name in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []
