"""Confinement with one more folder to write to: where launchers of tests leave marks for each other."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from stoker.workers import sandbox
from stoker.workers.sandbox import Confinement


def let_write(folder_of: Callable[[Path], Path]) -> None:
    """In a fork server: let trainers write the folder that is found from their scratch folder; it is made."""
    confine = sandbox.confine

    def wider(confinement: Confinement) -> None:
        folder = folder_of(Path(confinement.read_write[0]))
        folder.mkdir(parents=True, exist_ok=True)
        confine(replace(confinement, read_write=(*confinement.read_write, str(folder))))

    sandbox.confine = wider
