"""What git knows of a folder of code; without git, or outside a repository, nothing."""

import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from stoker.jobs.code_files import GIT_FIELD, GIT_LIMIT_BYTES

SECONDS = 60
DIFF_CHARACTERS = 100_000  # of the changes since the commit; what is more is cut


def files(folder: Path) -> list[str] | None:
    """What git tracks below a folder, and what is new and not ignored; None where git has no say.

    Repositories inside, submodules too, are looked at in their turn.
    """
    listed = _git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if listed is None:
        return None
    found: list[str] = []
    for path in filter(None, os.fsdecode(listed).split("\0")):
        inner = folder / path
        if inner.is_dir() and not inner.is_symlink():
            found += [f"{path.rstrip('/')}/{below}" for below in files(inner) or []] if inner != folder else []
        else:
            found.append(path)
    return found


def describe(folder: Path) -> dict[str, Any] | None:
    """Commit, branch, whether the folder differs from the commit, and how; None before the first commit."""
    commit = _text(folder, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return None
    status = _git(folder, "status", "--porcelain", "-z", "--", ".")
    diff = _text(folder, "diff", "--no-color", "--no-ext-diff", "--no-textconv", "HEAD", "--", ".") or ""
    branch = _text(folder, "symbolic-ref", "--short", "HEAD")  # none: a commit is checked out by itself
    return {
        "commit": commit,
        "branch": branch[:300] if branch else None,
        "dirty": bool(status),
        "diff": _storable(diff)[:DIFF_CHARACTERS],
    }


def tar_header(git: dict[str, Any]) -> bytes:
    """The global header of a tar that tells the server what git said."""
    text = json.dumps(git)
    if len(text) > GIT_LIMIT_BYTES:
        text = json.dumps(git | {"diff": git["diff"][: DIFF_CHARACTERS // 8]})
    return tarfile.TarInfo.create_pax_global_header({GIT_FIELD: text})


def _storable(text: str) -> str:
    return text.replace("\0", "\ufffd")


def _text(folder: Path, *arguments: str) -> str | None:
    found = _git(folder, *arguments)
    return found.decode(errors="replace").rstrip("\n") if found is not None else None


def _git(folder: Path, *arguments: str) -> bytes | None:
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=SECONDS, check=True, env=environ | {"GIT_OPTIONAL_LOCKS": "0"}
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
