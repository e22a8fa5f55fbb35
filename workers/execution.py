"""How a forked child becomes a program of the user's own: it is cut loose, dressed and confined already.

This module loads nothing heavy.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

KINDS = ("script", "notebook")  # of tasks that are another program
NOT_EXECUTABLE = 126  # as shells say it
# What Python ignores for itself, and what a program that is executed would go on ignoring.
_RESTORED = (signal.SIGPIPE, signal.SIGXFSZ)


def write(scratch: Path, folder: str, program: str, arguments: list[str], environment: dict[str, str]) -> str:
    """Write down what is to be executed: it may be longer than an order can be. Returns the place."""
    path = scratch / "start.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps({"folder": folder, "program": program, "argv": arguments, "environment": environment}))
    return str(path)


def execute(start: str) -> NoReturn:
    """Run what was written down in place of this process, which keeps its parent, limits and descriptors 0 to 3."""
    path = Path(start)
    what = json.loads(path.read_text())
    path.unlink()  # its secrets are the environment's from here on
    for number in _RESTORED:
        signal.signal(number, signal.SIG_DFL)
    os.chdir(what["folder"])
    try:
        os.execve(what["program"], what["argv"], what["environment"])  # noqa: S606 - no shell is the point
    except OSError as error:
        sys.stderr.write(f"stoker: {what['program']} cannot be executed: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(NOT_EXECUTABLE)
