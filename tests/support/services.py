"""Real services for tests, each in a folder of its own that goes away with it."""

import importlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stoker.stack.postgres import UNSAFE_BUT_QUICK, Postgres


@contextmanager
def short_home() -> Iterator[Path]:
    """A new folder in /tmp that the service account can reach (pytest's own folders it cannot), removed at the end."""
    home = Path(tempfile.mkdtemp(prefix="stoker-test-", dir="/tmp"))
    if os.geteuid() == 0:
        home.chmod(0o711)
    try:
        yield home
    finally:
        shutil.rmtree((home / "postgres").resolve(), ignore_errors=True)  # may be a link to a folder elsewhere
        shutil.rmtree(home)


@contextmanager
def quick_postgres() -> Iterator[Postgres]:
    """A cluster that never waits for the disk."""
    with short_home() as home, Postgres.start(home, UNSAFE_BUT_QUICK) as postgres:
        yield postgres


def make_template(postgres: Postgres) -> str:
    """Make a migrated database that ``create_database`` can copy; its name."""
    url = postgres.create_database("template_stoker")
    # Imported here, so that tests of the services themselves need no tables.
    importlib.import_module("stoker.jobs.database").upgrade(url)
    return "template_stoker"
