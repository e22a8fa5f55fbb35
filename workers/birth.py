"""How a forked child of the fork server becomes a trainer: cut loose, dressed as its order says, run to its end.

This module loads nothing heavy.
"""

import contextlib
import faulthandler
import json
import os
import resource
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from typing import Any, NoReturn

from stoker.workers import execution, processes, sandbox
from stoker.workers.orders import MAX_PACKET_BYTES, Order
from stoker.workers.sandbox import Confinement

FILE_LIMIT_BYTES = 64 * 2**30
CHANNEL = 3  # the descriptor of the socket to the supervisor, in every trainer

Run = Callable[[dict[str, Any], socket.socket], int]
Rehearse = Callable[[], None]


def become_trainer(server: int, connection: socket.socket, run: Run, rehearse: Rehearse) -> NoReturn:
    """In a forked child: cut what ties it to the server, wait for an order, run it, and end without a farewell."""
    code = 1
    try:
        _isolate(server, connection.fileno())
        rehearse()
        sandbox.rehearse()
        data, fds, _, _ = socket.recv_fds(socket.socket(fileno=CHANNEL), MAX_PACKET_BYTES, 2)
        if not data:
            os._exit(0)
        order = Order.read(json.loads(data))
        channel = _put_on(order, *fds)
        if order.task["kind"] in execution.KINDS:
            execution.execute(order.task["start"])
        code = run(order.task, channel)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)  # torch takes 0.8 s to tear down what the kernel frees at once


def _isolate(server: int, connection: int) -> None:
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(connection, CHANNEL)
    processes.close_from(CHANNEL + 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT_BYTES, FILE_LIMIT_BYTES))
    os.umask(0o077)
    processes.adopt_orphans()
    processes.die_with(server)  # last: nothing after it may change who we are


def _put_on(order: Order, channel: int, log: int) -> socket.socket:
    """Wear the order: its log, environment, folder and title, and its confinement. Returns the supervisor's socket."""
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.dup2(channel, CHANNEL)
    processes.close_from(CHANNEL + 1)
    os.environ.clear()
    os.environ.update(order.environment)
    os.chdir(order.scratch)
    tempfile.tempdir = None
    processes.set_title(order.title)
    speak_when_hurt()
    channel_socket = socket.socket(fileno=CHANNEL)
    if order.confinement is not None:
        sandbox.confine(Confinement.from_document(order.confinement))  # last: nothing of this is allowed afterwards
    return channel_socket


def speak_when_hurt() -> None:
    """Let the log have each line at once, and the stacks of a crash, or when the supervisor asks for them."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
