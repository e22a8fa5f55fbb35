"""The fork server: one single-threaded process that has loaded what trainers need, and forks one per order.

It is the parent of every trainer and holds each one's deadline: a trainer whose lease was not renewed in time is
frozen, with all its descendants, and goes on when the renewal comes. When the worker's end of the socketpair closes,
every descendant dies, wherever it has fled to: the server and each trainer adopt the orphans below them, so a process
that hangs directly under the server, and is no trainer, can only have lost a trainer that is dead.

Whoever serves has loaded its modules before; this module itself loads nothing heavy.
"""

import collections
import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Any, NoReturn

from stoker.workers import processes
from stoker.workers.birth import Rehearse, Run, become_trainer
from stoker.workers.orders import MAX_PACKET_BYTES, Order, pack

FROZEN_LIMIT_SECONDS = 600.0
SPARE_DELAY_SECONDS = 0.3  # the trainer that was just started needs the processor more than the next one's fork
FORK_AGAIN_SECONDS = 5.0
STRAYS_SECONDS = 5.0


@dataclass(slots=True)
class _Trainer:
    id: str
    pid: int
    deadline: float
    frozen_at: float | None = None
    lost: str | None = None  # why it ends by no fault of its own
    ended: int | None = None  # exit code, or minus the signal
    ended_at: float = field(default=0.0)
    cpu_seconds: float = 0.0


class Server:
    """The loop. ``run`` is called in each trainer with its task and its socket; what it returns is the exit code.

    ``rehearse`` is called in each child while it waits for its order.
    """

    def __init__(self, connection: socket.socket, run: Run, rehearse: Rehearse) -> None:
        """Serve the worker at the other end of ``connection``, a SOCK_SEQPACKET."""
        connection.setblocking(False)
        self._connection, self._run, self._rehearse = connection, run, rehearse
        self._trainers: dict[str, _Trainer] = {}
        self._spare: tuple[int, socket.socket] | None = None
        self._spare_due = time.monotonic()
        self._outbox: collections.deque[bytes] = collections.deque()
        self._wake, wake_write = socket.socketpair()
        self._wake.setblocking(False)
        wake_write.setblocking(False)
        self._wake_write = wake_write
        signal.set_wakeup_fd(wake_write.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)

    def serve(self) -> NoReturn:
        """Serve until the worker is gone, then leave nothing behind."""
        processes.adopt_orphans()
        self._tell(event="ready", pid=os.getpid())
        with selectors.DefaultSelector() as selector:
            selector.register(self._connection, selectors.EVENT_READ)
            selector.register(self._wake, selectors.EVENT_READ)
            while True:
                events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._outbox else 0)
                selector.modify(self._connection, events)
                selector.select(self._pause())
                self._hold_deadlines()  # first: after a pause of the whole machine nothing may run on
                self._drain_wake()
                self._flush()
                self._take_orders()
                self._reap()
                if self._spare is None and time.monotonic() >= self._spare_due:
                    self._fork_ahead()

    def _pause(self) -> float:
        """Seconds until something is due."""
        now, waits = processes.boottime(), [1.0]
        waits += [trainer.deadline - now for trainer in self._trainers.values() if trainer.frozen_at is None]
        waits += [0.005 for trainer in self._trainers.values() if trainer.ended is not None]
        if self._spare is None:
            waits.append(self._spare_due - time.monotonic())
        return max(0.0, min(waits))

    def _drain_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake.recv(4096):
                pass

    def _tell(self, **event: Any) -> None:
        self._outbox.append(pack(event))
        self._flush()

    def _flush(self) -> None:
        try:
            while self._outbox:
                self._connection.send(self._outbox[0])
                self._outbox.popleft()
        except BlockingIOError:
            pass  # a frozen worker; the rest goes when it reads again
        except OSError:
            self._end()

    def _take_orders(self) -> None:
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self._connection, MAX_PACKET_BYTES, 2)
            except BlockingIOError:
                return
            except OSError:
                data, fds = b"", []
            if not data:
                self._end()
            order = json.loads(data)
            if order["op"] == "spawn":
                self._spawn(data, Order.read(order), fds)
            elif order["op"] == "renew":
                self._renew(order["deadlines"])
            elif (trainer := self._trainers.get(order["id"])) and trainer.ended is None:
                self._signal(trainer, order["op"], order.get("signal", signal.SIGKILL))

    def _spawn(self, packet: bytes, order: Order, fds: list[int]) -> None:
        try:
            pid = self._hand_over(packet, fds)
        except OSError as error:  # of fork: no process or no memory left
            self._tell(event="exited", id=order.id, status=1, lost=f"no process could be started for it: {error}")
        else:
            self._trainers[order.id] = _Trainer(order.id, pid, order.deadline)
            self._tell(event="started", id=order.id, pid=pid)
        for descriptor in fds:
            os.close(descriptor)
        self._spare, self._spare_due = None, time.monotonic() + SPARE_DELAY_SECONDS

    def _hand_over(self, packet: bytes, fds: list[int]) -> int:
        """Give an order to a waiting process, or to a new one; its pid."""
        pid, spare = self._spare or self._fork()
        try:
            socket.send_fds(spare, [packet], fds)
        except OSError:  # the spare was killed by somebody
            spare.close()
            pid, spare = self._fork()
            socket.send_fds(spare, [packet], fds)
        spare.close()
        return pid

    def _fork_ahead(self) -> None:
        try:
            self._spare = self._fork()
        except OSError as error:
            sys.stderr.write(f"fork server: no process ahead of its order: {error}\n")
            self._spare_due = time.monotonic() + FORK_AGAIN_SECONDS

    def _fork(self) -> tuple[int, socket.socket]:
        """Fork a process that waits for its order."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        server = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            become_trainer(server, theirs, self._run, self._rehearse)
        theirs.close()
        return pid, ours

    def _signal(self, trainer: _Trainer, op: str, number: int) -> None:
        if op == "kill":
            processes.signal_tree(trainer.pid, signal.SIGKILL)
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(trainer.pid, number)

    def _renew(self, deadlines: dict[str, float]) -> None:
        for name, deadline in deadlines.items():
            if trainer := self._trainers.get(name):
                trainer.deadline = deadline
        self._hold_deadlines()

    def _hold_deadlines(self) -> None:
        now = processes.boottime()
        for trainer in self._trainers.values():
            if trainer.ended is not None:
                continue
            if now >= trainer.deadline:
                processes.signal_tree(trainer.pid, signal.SIGSTOP)  # again at each look: it may have waked itself
            if trainer.frozen_at is None and now >= trainer.deadline:
                trainer.frozen_at = now
                self._tell(event="frozen", id=trainer.id)
            elif trainer.frozen_at is not None and now < trainer.deadline:
                processes.signal_tree(trainer.pid, signal.SIGCONT)
                self._tell(event="thawed", id=trainer.id, seconds=now - trainer.frozen_at)
                trainer.frozen_at = None
            elif trainer.frozen_at is not None and now - trainer.frozen_at > FROZEN_LIMIT_SECONDS:
                trainer.lost = f"its worker was cut off from the database for more than {FROZEN_LIMIT_SECONDS:g} s"
                processes.signal_tree(trainer.pid, signal.SIGKILL)

    def _reap(self) -> None:
        """Collect what has ended; a trainer counts as ended when all that it left behind is gone too."""
        by_pid = {trainer.pid: trainer for trainer in self._trainers.values() if trainer.ended is None}
        while True:
            try:
                pid, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if trainer := by_pid.pop(pid, None):
                trainer.ended, trainer.ended_at = os.waitstatus_to_exitcode(status), time.monotonic()
                trainer.cpu_seconds = used.ru_utime + used.ru_stime  # with those of children that it waited for
            elif self._spare and pid == self._spare[0]:
                self._spare[1].close()
                self._spare = None
        if ended := [trainer for trainer in self._trainers.values() if trainer.ended is not None]:
            strays = processes.kill_strays({*by_pid, *([self._spare[0]] if self._spare else [])})
            for trainer in ended:
                if not strays or time.monotonic() > trainer.ended_at + STRAYS_SECONDS:
                    del self._trainers[trainer.id]
                    self._tell(
                        event="exited",
                        id=trainer.id,
                        status=trainer.ended,
                        lost=trainer.lost,
                        cpu_seconds=trainer.cpu_seconds,
                    )

    def _end(self) -> NoReturn:
        """The worker is gone: kill every descendant, then go too."""
        until = time.monotonic() + STRAYS_SECONDS
        while processes.kill_strays(set()) and time.monotonic() < until:
            time.sleep(0.002)
        os._exit(0)


def serve(descriptor: int, run: Run, rehearse: Rehearse = lambda: None) -> NoReturn:
    """Serve on an inherited descriptor, in a process that has loaded what its trainers share."""
    processes.set_title("stoker-forks")
    gc.collect()
    gc.freeze()  # a collection in a child would otherwise touch, and so copy, all of these pages
    Server(socket.socket(fileno=descriptor), run, rehearse).serve()
