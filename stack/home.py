"""STOKER_HOME: the folder in which one stack keeps its data, held by one process at a time."""

import base64
import fcntl
import os
import secrets
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from stoker.errors import SettingInvalid, StackError
from stoker.stack.account import write_private
from stoker.workers.host import refuse_home

FORMAT = 1  # of what lies in the folder; raised when an older Stoker could not use it any more


class Home:
    """The folder, locked until ``close``. Small values are files of mode 0600: token, url, passwords, ports."""

    def __init__(self, path: Path) -> None:
        """Make the folder if absent, lock it, see that its data is not of a newer Stoker, clear what a kill left.

        Raises StackError: another process holds it. SettingInvalid: it cannot be written, or its data is newer.
        """
        self.path = path
        try:
            new = not path.exists()
            refuse_home(path)
            if new:
                path.chmod(0o711 if os.geteuid() == 0 else 0o700)  # root: the service account must pass to its data
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            problem = f"{path} cannot be used: {error.strerror}"
            raise SettingInvalid("STOKER_HOME", problem, "name a folder of one's own") from None
        try:
            self._hold()
            self._check_format()
            self._clear_folders()
        except BaseException:
            os.close(self._lock)
            raise

    def _hold(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 20, 0).decode() or "unknown"
            raise StackError(
                f"another process ({holder}) already runs a stack in {self.path}; "
                "stop it, or set STOKER_HOME to another folder"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"pid {os.getpid()}".encode(), 0)

    def _check_format(self) -> None:
        found = self.read("format")
        if found is None:
            self.write("format", str(FORMAT))
        elif not found.isdecimal() or int(found) > FORMAT:
            problem = f"the data in {self.path} has format {found:.20}, this Stoker knows {FORMAT}"
            raise SettingInvalid("STOKER_HOME", problem, "upgrade Stoker, or set another folder")

    def _clear_folders(self) -> None:
        for line in (self.read("sockets") or "").splitlines():
            folder = Path(line)
            if folder.name.startswith("stoker-") and folder.is_dir() and not folder.is_symlink():
                shutil.rmtree(folder, ignore_errors=True)

    def remember_folders(self, *folders: Path) -> None:
        """Note the socket folders in use, so that the next start removes them if we are killed."""
        self.write("sockets", "\n".join(map(str, folders)))

    def read(self, name: str) -> str | None:
        """A small value, or None."""
        try:
            return (self.path / name).read_text().strip()
        except FileNotFoundError:
            return None

    def write(self, name: str, text: str) -> None:
        """Keep a small value, readable by its owner alone."""
        write_private(self.path / name, text + "\n")

    def secret(self, name: str) -> str:
        """A random password that stays the same from its first use on."""
        return self._kept(name, secrets.token_urlsafe(24))

    def key(self, name: str) -> str:
        """A random key of 32 bytes in url-safe base64 that stays the same from its first use on."""
        return self._kept(name, base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())

    def _kept(self, name: str, fresh: str) -> str:
        if found := self.read(name):
            return found
        self.write(name, fresh)
        return fresh

    def forget(self, *names: str) -> None:
        """Remove values."""
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Let others in."""
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
