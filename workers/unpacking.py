"""Archives unpacked file by file to places of our own making: code for one job, data sets for all jobs of this machine.

Folders are made here and hold nothing but plain files, so that no name of an archive can lead anywhere.
"""

import errno
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

from stoker.errors import DataDamaged
from stoker.quoting import quoted
from stoker.training import archives

PIECE_BYTES = 2**20
# No file can be called so here, be it that another one is, or that this disk takes no such names
_UNNAMEABLE = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)


def unpack_code(archive: Path, folder: Path, check: Callable[[], None]) -> None:
    """Unpack a snapshot of code, a plain tar of plain files, into an empty folder.

    Raises DataDamaged, OSError, and what ``check``, called before each file, raises.
    """
    try:
        with tarfile.open(archive, mode="r:") as tar:
            for info in tar:
                check()
                path = _place(folder, info.name)
                if not info.isreg() or (content := tar.extractfile(info)) is None:
                    raise DataDamaged(f"{info.name[:200]} of the code")
                mode = 0o755 if info.mode & 0o100 else 0o644
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
                with os.fdopen(descriptor, "wb") as file:
                    shutil.copyfileobj(content, file, PIECE_BYTES)
                    os.fchmod(descriptor, mode)  # whatever the umask is
    except tarfile.TarError as error:
        raise DataDamaged(f"the code: {error}") from None


def unpack_dataset(archive: Path, folder: Path, check: Callable[[], None]) -> list[str]:
    """Unpack the files of a data set into an empty folder, read-only. Returns what was left out, and why.

    Raises TrainingFailed (a damaged archive), OSError, and what ``check``, called before each file, raises.
    """
    left_out = []
    for member, _ in archives.members(archive):
        check()
        if member.problem:
            left_out.append(f"{member.name[:200]}: {member.problem}")
            continue
        try:
            path = _place(folder, member.name)
            path.write_bytes(member.content)
        except OSError as error:
            if error.errno not in _UNNAMEABLE:
                raise
            left_out.append(f"{member.name[:200]}: {error.strerror}")
        else:
            path.chmod(0o444)
    return left_out


def _place(folder: Path, name: str) -> Path:
    """Where a file of an archive belongs, with the folders above it made; raises DataDamaged."""
    parts = name.removeprefix("./").split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise DataDamaged(f"the name {quoted(name, 200)}")
    path = folder.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
