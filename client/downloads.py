"""Bytes from the server into files."""

import hashlib
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from stoker.client.transport import Transport
from stoker.errors import DataDamaged, InvalidInput
from stoker.jobs.spec_fields import inner_path
from stoker.quoting import quoted


def fetch(transport: Transport, address: str, target: Path, sha256: str | None = None) -> Path:
    """Write what an address answers into a file, which appears only when it is whole, and right where that is known.

    Raises DataDamaged, OSError, and what the transport raises.
    """
    aside = target.with_name(f".{target.name[:200]}.{os.getpid()}.part")
    found = hashlib.sha256()
    try:
        with transport.stream(address, headers={}, read_seconds=60) as response, aside.open("wb") as file:
            for piece in response.iter_bytes(1 << 20):
                found.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        if sha256 not in (None, found.hexdigest()):
            raise DataDamaged(target.name)
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
    return target


def fetch_outputs(transport: Transport, number: int, items: list[dict[str, Any]], folder: Path) -> list[Path]:
    """Write a job's output files below a folder; what lies there with the same content is not fetched again.

    Raises InvalidInput: a name would lead out of the folder, also by a link that lies there; nothing was written by it.
    """
    for item in items:
        inner_path(item["path"])
    folder.mkdir(parents=True, exist_ok=True)
    return [_fetch_output(transport, number, item, folder) for item in items]


def _fetch_output(transport: Transport, number: int, item: dict[str, Any], folder: Path) -> Path:
    root, path = folder.resolve(), str(item["path"])
    target = root / path
    if not target.parent.resolve().is_relative_to(root):
        raise InvalidInput("path", f"{quoted(path)} would be written through a link", "choose another folder with -o")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not (target.is_file() and not target.is_symlink() and _sha256(target) == item["sha256"]):
        fetch(transport, f"/jobs/{number}/outputs/{quote(path, safe='/')}", target, item["sha256"])
    return folder / path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
