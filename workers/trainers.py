"""The worker's side of the fork server: start trainers, hear from them, stop them."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stoker.errors import Unavailable
from stoker.log import Events
from stoker.workers import processes
from stoker.workers.orders import MAX_PACKET_BYTES, Order, pack
from stoker.workers.protocol import Inbox

events = Events(__name__)
COMMAND = (sys.executable, "-m", "stoker.workers.child")
READY_SECONDS = 120.0  # a cold disk takes a while to give up torch
LEAVE_SECONDS = 10.0  # for a fork server to end by itself, after it has hung up
CLOSE_SECONDS = 2.0  # the same when nothing runs any more; what it leaves behind is killed all the same
CHECK_SECONDS = 0.2
PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "LD_LIBRARY_PATH")
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")  # built-ins are downloaded
READ_BYTES = 256 * 1024
LOST = -1000  # the exit status of a trainer whose own is not known
SERVER_DIED = "the process that holds this worker's trainers ended"
UNKILLABLE = "it did not end when it was killed"


def allowed_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What trainers may see of the worker's environment: nothing that could hold a secret of Stoker."""
    return {name: environ[name] for name in (*PASSED_ON, *PROXIES) if name in environ}


class Trainer:
    """One trainer, from its order to its end. All methods may be called from any thread."""

    def __init__(self, name: str, connection: socket.socket, tell: Callable[..., None]) -> None:
        """``tell`` reaches the fork server."""
        self.id, self.pid = name, 0
        self.inbox = Inbox()
        self.status: int | None = None  # exit code, minus the signal, or LOST
        self.lost: str | None = None  # why it ended by no fault of its own
        self.cpu_seconds = 0.0  # of itself and the children it waited for, once it has ended
        self.frozen_seconds = 0.0  # over so far
        self._frozen_since: float | None = None
        self._connection, self._tell = connection, tell
        connection.setblocking(False)
        self._ended = False  # the socket was read to its end
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._wake_lock = threading.Lock()  # a descriptor that was closed may be somebody else's by now
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)

    @property
    def gone(self) -> bool:
        """Whether it has ended, all that it left behind is gone, and all that it said was read."""
        return self.status is not None and self._ended

    def time_frozen(self, now: float) -> float:
        """Seconds that it was frozen, up to ``now`` (monotonic); these count for no limit."""
        since = self._frozen_since
        return self.frozen_seconds + (max(0.0, now - since) if since is not None else 0.0)

    def wait(self, timeout_seconds: float) -> list[dict[str, Any]]:
        """Wait for messages, for its end, or for ``wake``. Returns the messages that came."""
        self._poll.poll(max(0, round(timeout_seconds * 1000)))
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            pass  # not woken
        return self._read()

    def _read(self) -> list[dict[str, Any]]:
        if self._ended:
            return []
        try:
            data = self._connection.recv(READ_BYTES)
        except BlockingIOError:
            return []
        except ConnectionError:
            data = b""
        if not data:
            self._ended = True
            self._poll.unregister(self._connection)
        return self.inbox.take(data)

    def wake(self) -> None:
        """Let ``wait`` return at once."""
        with self._wake_lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def ask(self, request: str) -> None:
        """Ask for a ``checkpoint``, or to ``stop``; never waits."""
        try:
            self._connection.send(json.dumps({"type": request}).encode() + b"\n")
        except OSError:
            pass  # it is gone, or takes no requests: signals follow

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the trainer itself."""
        self._tell(op="signal", id=self.id, signal=int(number))

    def kill(self) -> None:
        """Kill it and all its descendants."""
        self._tell(op="kill", id=self.id)

    def abandon(self) -> None:
        """Take it for lost, whatever becomes of it."""
        self.lost, self.status, self._ended = UNKILLABLE, LOST, True

    def close(self) -> None:
        """Give back the descriptors."""
        self._connection.close()
        with self._wake_lock:
            os.close(self._wake)
            self._wake = -1

    def heard(self, event: Mapping[str, Any]) -> None:
        """Take an event of the fork server about this trainer."""
        if event["event"] == "started":
            self.pid = event["pid"]
            return
        if event["event"] == "frozen":
            self._frozen_since = time.monotonic()
        elif event["event"] == "thawed":
            self.frozen_seconds += event["seconds"]
            self._frozen_since = None
        else:
            self.cpu_seconds = event.get("cpu_seconds", 0.0)
            self.lost, self.status = event.get("lost"), event["status"]
        self.wake()


class ForkServer:
    """A fork server that is started again when it dies. Its trainers die with it."""

    def __init__(
        self, environ: Mapping[str, str], command: Sequence[str] = COMMAND, *, owns_process: bool = False
    ) -> None:
        """Describe it; ``environ`` is the worker's, of which it sees an allow-list.

        With ``owns_process`` this process has no children but the fork server and orphans below it, which it
        has adopted: when the server dies, all of them are killed.
        """
        self._owns_process = owns_process
        self._environ, self._command = allowed_environment(environ) | {"OMP_NUM_THREADS": "1"}, command
        if "PYTHONPATH" in environ:
            self._environ["PYTHONPATH"] = environ["PYTHONPATH"]
        self._lock = threading.Lock()  # of what follows
        self._trainers: dict[str, Trainer] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._ready = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._keep, name="fork-server", daemon=True)

    @property
    def pid(self) -> int | None:
        """Its process id, while there is one."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start it; it is ready some seconds later."""
        self._thread.start()

    def wait_ready(self, timeout_seconds: float = READY_SECONDS) -> None:
        """Wait until it takes orders; raises Unavailable."""
        if not self._ready.wait(timeout_seconds):
            raise Unavailable("the fork server")

    def spawn(self, order: Order, log: int, check: Callable[[], None] = lambda: None) -> Trainer:
        """Start a trainer, which writes to the open file ``log``; ``check`` is called while the server is not ready.

        Raises Unavailable: the fork server is down and does not come back; and what ``check`` raises.
        """
        until = time.monotonic() + READY_SECONDS
        while not self._ready.wait(CHECK_SECONDS) and time.monotonic() < until:
            check()
        self.wait_ready(0)
        ours, theirs = socket.socketpair()
        trainer = Trainer(order.id, ours, self._tell)
        with theirs, self._lock:
            if self._connection is None:
                trainer.close()
                raise Unavailable("the fork server")
            self._trainers[order.id] = trainer
            self._send([order.packet()], [theirs.fileno(), log])
        return trainer

    def renew(self, deadlines: Mapping[str, float]) -> None:
        """Let trainers go on until these times (CLOCK_BOOTTIME)."""
        if deadlines:
            self._tell(op="renew", deadlines=dict(deadlines))

    def close(self) -> None:
        """End it, and all its trainers with it."""
        with self._lock:
            self._closing = True
            if self._connection:
                self._connection.shutdown(socket.SHUT_RDWR)
            if self._process and not self._ready.is_set():
                self._process.kill()  # it still loads, and would not look at its connection for seconds
        self._thread.join()

    def _tell(self, **order: Any) -> None:
        with self._lock:
            if self._connection is not None:
                self._send([pack(order)], [])

    def _send(self, packet: list[bytes], descriptors: list[int]) -> None:
        if self._connection is None or self._process is None:  # the caller holds the lock, and has looked
            return
        try:
            socket.send_fds(self._connection, packet, descriptors, socket.MSG_DONTWAIT)
        except BlockingIOError:
            self._process.kill()  # one that does not read orders is as good as dead
        except OSError:
            pass  # it has just died, and everything with it: the thread that hears of it tells the trainers

    def _keep(self) -> None:
        while not self._closing:
            began = time.monotonic()
            try:
                self._run_once()
            except OSError as error:  # no process, no descriptor, no memory: for the moment
                events.error("fork_server_not_started", error=str(error))
            if not self._closing:
                events.error("fork_server_died", after_seconds=round(time.monotonic() - began, 1))
                time.sleep(max(0.0, 1.0 - (time.monotonic() - began)))  # one that dies at once must not spin

    def _run_once(self) -> None:
        """Start it, hear from it until it has gone, and clear up behind it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with theirs:
                process = subprocess.Popen(
                    [*self._command, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    env=self._environ,
                    stdin=subprocess.DEVNULL,
                    stdout=sys.stderr.fileno(),
                    cwd="/",
                    start_new_session=True,
                )
            with self._lock:
                self._process, self._connection = process, ours
                if self._closing:
                    ours.shutdown(socket.SHUT_RDWR)
            self._hear(ours)
            with self._lock:
                self._connection = None
                self._ready.clear()
                lost, self._trainers = self._trainers, {}
        self._clear_up(process)
        for trainer in lost.values():
            trainer.heard({"event": "exited", "status": LOST, "lost": SERVER_DIED})

    def _hear(self, connection: socket.socket) -> None:
        while True:
            try:
                data = connection.recv(MAX_PACKET_BYTES)
            except OSError:
                return
            if not data:
                return
            event = json.loads(data)
            if event["event"] == "ready":
                self._ready.set()
                continue
            with self._lock:
                trainer = self._trainers.get(event["id"])
                if event["event"] == "exited":
                    self._trainers.pop(event["id"], None)
            if trainer:
                trainer.heard(event)

    def _clear_up(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for its end; kill what it left, which now hangs under this process."""
        try:
            process.wait(CLOSE_SECONDS if self._closing else LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        until = time.monotonic() + 5
        while self._owns_process and processes.kill_strays(set()) and time.monotonic() < until:
            time.sleep(0.005)
