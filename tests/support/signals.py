"""Signals to processes that may have ended by then."""

import os
import signal
from collections.abc import Iterable


def signal_process(pid: int, number: signal.Signals) -> bool:
    """Send a signal; whether there was still a process to receive it."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    """Send each a signal; one that has ended keeps it from none of the others."""
    for pid in pids:
        signal_process(pid, number)
