"""The files that a program leaves in its output folder: found without following anything, kept within limits."""

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stoker.errors import InvalidInput
from stoker.jobs.spec_fields import inner_path
from stoker.workers.handover import FOLDER

FILES_LIMIT = 10_000
ENTRIES_LIMIT = 10 * FILES_LIMIT  # looked at; what lies beyond is not even counted
DEPTH_LIMIT = 32
NOTED = 5  # refusals that are named one by one


@dataclass(frozen=True, slots=True)
class Found:
    """What may be kept, and what is said of the rest."""

    paths: tuple[str, ...]  # relative, sorted
    notes: tuple[str, ...]


def find(folder: Path, limit_bytes: int) -> Found:
    """Look for plain files below a folder, whose owner may have put anything there: links are never followed."""
    kept, refused, left = list[str](), list[str](), limit_bytes
    for path, size, problem in sorted(itertools.islice(_walk(folder, None, "", 0), ENTRIES_LIMIT)):
        if problem := problem or _refusal(path, size, left, len(kept)):
            refused.append(f"the output {_shown(path)} was not kept: {problem}")
        else:
            kept.append(path)
            left -= size
    notes = refused[:NOTED]
    if len(refused) > NOTED:
        notes.append(f"{len(refused) - NOTED:,} more outputs were not kept")
    return Found(tuple(kept), tuple(notes))


def _walk(folder: str | Path, within: int | None, prefix: str, depth: int) -> Iterator[tuple[str, int, str]]:
    """Each entry's path and bytes, and why it cannot be kept if that is known already."""
    try:
        held = os.open(folder, FOLDER, dir_fd=within)
    except OSError as error:  # it took away its own right to read it, or made another thing of it
        yield prefix or ".", 0, error.strerror or "it cannot be read"
        return
    try:
        for entry in os.scandir(held):  # one by one: there may be millions
            path = f"{prefix}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                if depth == DEPTH_LIMIT:
                    yield path, 0, f"more than {DEPTH_LIMIT} folders deep"
                else:
                    yield from _walk(entry.name, held, f"{path}/", depth + 1)
            elif entry.is_file(follow_symlinks=False):
                yield path, entry.stat(follow_symlinks=False).st_size, ""
            else:
                yield path, 0, "it is a link, or no plain file"
    finally:
        os.close(held)


def _refusal(path: str, size: int, left_bytes: int, count: int) -> str:
    try:
        inner_path(path)
    except InvalidInput as error:
        return error.problem
    if count >= FILES_LIMIT:
        return f"there are more than {FILES_LIMIT:,}"
    if size > left_bytes:
        return f"it has {size:,} bytes, and {left_bytes:,} are left of what a job may keep"
    return ""


def _shown(path: str) -> str:
    return ascii(path[:100] + ("…" if len(path) > 100 else ""))
