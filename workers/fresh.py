"""A fork server that loads nothing: each trainer becomes a fresh interpreter, two seconds later than a forked one.

For machines on which forked children cannot train. Same parent, deadline, limits and end as any other trainer:
what a process has asked of the kernel outlives its exec.
"""

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

from stoker.workers import forkserver

COMMAND = (sys.executable, "-m", "stoker.workers.fresh")
TASK = "task.json"  # in the trainer's own folder, where it stands


def run_task(document: dict[str, Any], connection: socket.socket) -> NoReturn:
    """Leave the task to a new interpreter; the connection stays open as the descriptor that all trainers have."""
    Path(TASK).write_text(json.dumps(document))
    connection.detach()
    begin = f"import sys; sys.path[:] = {sys.path!r}; from stoker.workers import child; child.run_fresh({TASK!r})"
    os.execve(sys.executable, (sys.executable, "-P", "-c", begin), dict(os.environ))  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    forkserver.serve(int(sys.argv[-1]), run_task)
