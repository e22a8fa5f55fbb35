"""``stoker.current_run()``: finds out whether this process is the main one of a job, and if so, speaks for it."""

import atexit
import fcntl
import json
import os
import socket
import stat
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from stoker.training.config import RunTask
from stoker.training.run import Run
from stoker.training.speaker import Speaker

VARIABLE = "STOKER_RUN"  # path of the file with a RunTask
_found: list[Run] = []  # at most one
_finding = threading.Lock()


def current_run() -> Run:
    """The job that this process belongs to; the same object at each call.

    Inside a job only the first process that asks speaks for it: children, forked or started, find a run that keeps
    quiet. Raises InvalidInput when the file that STOKER_RUN names is not what a worker writes.
    """
    with _finding:
        if not _found:
            _found.append(_attach(os.environ))
        return _found[0]


def task_of(environ: Mapping[str, str]) -> RunTask | None:
    """What a worker has written for this job; None outside of one. Raises InvalidInput."""
    path = environ.get(VARIABLE)
    return RunTask.from_document(json.loads(Path(path).read_bytes())) if path else None


def _attach(environ: Mapping[str, str]) -> Run:
    if (task := task_of(environ)) is None:
        return Run()
    if not _is_socket(task.channel) or not _is_first(environ[VARIABLE]):
        return Run(task)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=task.channel)
    connection.settimeout(None)  # whatever the script has set for all sockets
    run = Run(task, Speaker(connection))
    os.register_at_fork(after_in_child=run.mute)
    atexit.register(run.close)
    _hook(run)
    return run


def _is_socket(descriptor: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        return False  # a child that was started without it


def _is_first(path: str) -> bool:
    """Take the lock of the file until the process ends: children that are started do not inherit it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return False
    return True


def _hook(run: Run) -> None:
    """Let an exception that ends the process tell why, where only the run knows."""
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        run.fail(error)
        before(kind, error, trace)

    sys.excepthook = hook
