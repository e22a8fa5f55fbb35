"""The unprivileged account under which root runs PostgreSQL and Redis."""

import os
import pwd
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from stoker.errors import StackError

CANDIDATES = ("postgres", "nobody")  # PostgreSQL refuses to run as root; Redis should not


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this machine, with its primary group."""

    name: str
    uid: int
    gid: int

    def reaches(self, path: Path) -> bool:
        """Whether it may pass through every folder above ``path``, judged by their mode bits."""
        return all(self._passes(folder) for folder in path.resolve().parents if folder.exists())

    def _passes(self, folder: Path) -> bool:
        status = folder.stat()
        if status.st_uid == self.uid:
            return bool(status.st_mode & stat.S_IXUSR)
        if status.st_gid == self.gid:
            return bool(status.st_mode & stat.S_IXGRP)
        return bool(status.st_mode & stat.S_IXOTH)

    def can_run(self, program: Path) -> bool:
        """Whether it may execute ``program``."""
        return self.reaches(program) and bool(program.stat().st_mode & stat.S_IXOTH)


def service_account(data: Path | None = None) -> Account | None:
    """Whom the services should run as: None, ourselves, unless we are root.

    Args:
        data: A data folder that may exist already; its owner then stays the owner.

    Raises StackError: we are root and there is no unprivileged user.
    """
    if os.geteuid() != 0:
        return None
    if data is not None and data.exists() and (owner := data.stat().st_uid) != 0:
        known = pwd.getpwuid(owner)
        return Account(known.pw_name, known.pw_uid, known.pw_gid)
    for name in CANDIDATES:
        try:
            known = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(known.pw_name, known.pw_uid, known.pw_gid)
    raise StackError(f"as root PostgreSQL needs an unprivileged user, one of {', '.join(CANDIDATES)}; add one")


def private_folder(account: Account | None) -> Path:
    """Make a short folder that only ``account`` may enter, for sockets: their paths must stay below 108 bytes."""
    longest = 40  # leaves room for the names of folder and socket
    parent = tempfile.gettempdir()
    if len(parent) > longest or (account and not account.reaches(Path(parent) / "x")):
        parent = "/tmp"  # noqa: S108 - mkdtemp makes a folder of mode 0700 with an unguessable name
    folder = Path(tempfile.mkdtemp(prefix="stoker-", dir=parent))
    give(folder, account)
    return folder


def give(path: Path, account: Account | None) -> None:
    """Hand something that we have just made to the account."""
    if account:
        os.chown(path, account.uid, account.gid)


def write_private(path: Path, text: str, account: Account | None = None) -> None:
    """Write a file that only its owner may read, and never leave half of one."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        if account:
            os.fchown(file.fileno(), account.uid, account.gid)
        file.write(text)
    draft.replace(path)


def copied_program(program: Path, shelf: Path) -> Path:
    """A copy of a program in ``shelf``, for an account that cannot reach the program itself; made once."""
    copy = shelf / program.name
    if not copy.exists() or copy.stat().st_size != program.stat().st_size:
        draft = copy.with_name(copy.name + ".new")
        shutil.copyfile(program, draft)
        draft.chmod(0o755)
        draft.replace(copy)
    return copy
