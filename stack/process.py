"""A service as our own child process: started, waited for, stopped, and never left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from stoker.errors import StackError
from stoker.stack.account import Account

LAUNCHER = Path(__file__).with_name("launcher.py")
LOG_LIMIT_BYTES = 10 * 1000 * 1000


class Child:
    """One service. It has its own session, so a terminal's Ctrl-C does not reach it, and it dies with our thread."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environ: Mapping[str, str],
        account: Account | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        """Describe the service; nothing runs before ``start``.

        Args:
            name: What it is called in messages.
            command: An absolute path and its arguments. No secrets: everybody can read them in /proc.
            log: Receives stdout and stderr; cut to its last 10 MB at each start.
            environ: The whole environment of the child.
            account: Whom to become; None: stay who we are.
            stop_signal: Asks it to end in good order.
            death_signal: What the kernel sends it if we die without stopping it.
        """
        self.name, self.command, self.log, self.environ = name, list(command), log, dict(environ)
        self.account, self.stop_signal, self.death_signal = account, stop_signal, death_signal
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int | None:
        """Its process id; None before the first start."""
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        """Whether it runs at this moment."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, from a thread that lives as long as it should: the kernel ties it to this thread."""
        trim(self.log)
        uid, gid = (self.account.uid, self.account.gid) if self.account else (-1, -1)
        ties = [str(int(self.death_signal)), str(os.getpid()), str(uid), str(gid)]
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(LAUNCHER), *ties, *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environ,
                cwd="/",
                start_new_session=True,
            )

    def wait_ready(self, ready: Callable[[], bool], timeout_seconds: float) -> None:
        """Return once ``ready()`` is true.

        Raises StackError, with the last lines of the log, when it ends first or takes too long; it is then stopped.
        """
        deadline = time.monotonic() + timeout_seconds
        while not ready():
            if not self.alive:
                raise StackError(f"{self.name} ended at once ({self.fate()}){self.last_lines()}")
            if time.monotonic() > deadline:
                self.stop(1)
                raise StackError(f"{self.name} was not ready after {timeout_seconds:g} s{self.last_lines()}")
            time.sleep(0.02)

    def stop(self, grace_seconds: float, hurry: Callable[[], bool] = lambda: False) -> None:
        """Ask it to end, wait until it has, or the time is over, or ``hurry()``; then kill it and its process group."""
        if self._process is not None and self.alive:
            self._process.send_signal(self.stop_signal)
            deadline = time.monotonic() + grace_seconds
            while self.alive and time.monotonic() < deadline and not hurry():
                time.sleep(0.01)
        self.kill()

    def kill(self) -> None:
        """End it without asking."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._kill_group()

    def _kill_group(self) -> None:
        """Kill what it left behind in its process group, which keeps its number while a member lives."""
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # nothing was left

    def fate(self) -> str:
        """How it ended: ``exit code 1`` or ``SIGKILL``."""
        code = self._process.poll() if self._process else None
        if code is None:
            return "running"
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    @property
    def refusal(self) -> str:
        """What it said before it ended because of a setting (exit code 2); else empty."""
        lines = self.last_lines(1).splitlines()
        return lines[-1].strip() if self._process and self._process.poll() == 2 and lines else ""

    def last_lines(self, count: int = 8) -> str:
        """The end of what it wrote since its last start, for an error message."""
        with self.log.open("rb") as log:
            log.seek(max(self._log_start, log.seek(0, os.SEEK_END) - 8192))
            lines = log.read().decode(errors="replace").splitlines()[-count:]
        return "\n".join([f"; the end of {self.log}:", *(f"  {line}" for line in lines)]) if lines else ""


def trim(log: Path) -> None:
    """Make the log file if absent (0600); keep the last 10 MB of a longer one."""
    log.touch(mode=0o600, exist_ok=True)
    if log.stat().st_size > LOG_LIMIT_BYTES:
        with log.open("rb") as file:
            file.seek(-LOG_LIMIT_BYTES, os.SEEK_END)
            kept = file.read()
        log.write_bytes(kept)


def environment(keep: Sequence[str] = (), **extra: str) -> dict[str, str]:
    """An environment for a service: an allow-list of ours, then ``extra``."""
    names = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", *keep)
    return {name: os.environ[name] for name in names if name in os.environ} | extra
