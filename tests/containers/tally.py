"""Checks as they are run: one line each for whoever watches, and a count at the end."""

import os
import time
from collections.abc import Callable
from threading import Lock

_SHOWN = 3000  # characters of an error


def say(text: str) -> None:
    """One line, at once."""
    os.write(1, f"{text}\n".encode())


class Tally:
    """Counts what passed, failed and was skipped; several threads may check."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._began = time.monotonic()
        self._counting = Lock()
        self.passed, self.failed, self.skipped = 0, 0, 0

    def note(self, text: str) -> None:
        """Say what is being done, and since when this runs."""
        say(f"[{time.monotonic() - self._began:4.0f} s] {text}")

    def check(self, name: str, promise: Callable[[], None]) -> bool:
        """Try one promise; whether it was kept."""
        began = time.monotonic()
        try:
            promise()
        except Exception as error:
            with self._counting:
                self.failed += 1
            say(f"FAILED  {name} ({time.monotonic() - began:.1f} s): {type(error).__name__}: {str(error)[:_SHOWN]}")
            return False
        with self._counting:
            self.passed += 1
        say(f"ok      {name} ({time.monotonic() - began:.1f} s)")
        return True

    def skip(self, name: str, reason: str) -> None:
        """Say that something was not tried."""
        self.skipped += 1
        say(f"skipped {name}: {reason}")

    def tell(self) -> int:
        """The last line; the exit code: 0 if nothing failed, and in CI nothing was skipped."""
        failed = f", {self.failed} failed" if self.failed else ""
        say(f"{self.passed} passed{failed}, {self.skipped} skipped in {time.monotonic() - self._began:.0f} s")
        return int(self.failed > 0 or (self.skipped > 0 and "CI" in os.environ))
