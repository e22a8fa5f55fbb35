"""A script in a process of its own, with everything that a worker gives it, and this test as its supervisor."""

import json
import os
import runpy
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stoker.training.config import CheckpointSource, Interval, NotebookTask, RunTask

Message = dict[str, Any]
CHANNEL = 3


def say(*words: object) -> None:
    """Print a line that the test reads."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


class Script:
    """A running script; leaving the block kills it. ``folder`` is its working directory and holds all it writes."""

    def __init__(
        self,
        folder: Path,
        command: Sequence[str] | Callable[[], None],
        *,
        checkpoint: CheckpointSource | None = None,
        every: Interval | None = None,
        notebook: NotebookTask | None = None,
        variables: Mapping[str, str] | None = None,
        scratch: str = "scratch",
    ) -> None:
        """Start it: an interpreter with arguments, or in a forked child of this one a path, or a function."""
        self.scratch, self.output = folder / scratch, folder / scratch / "output"
        self.output.mkdir(parents=True, exist_ok=True)
        task = RunTask(
            job=7,
            attempt=1,
            scratch=str(self.scratch),
            output=str(self.output),
            data=str(folder / "data"),
            checkpoint=checkpoint,
            every=every or Interval(),
            notebook=notebook,
        )
        (self.scratch / "run.json").write_text(json.dumps(task.to_document()))
        given = {"STOKER_RUN": str(self.scratch / "run.json"), "STOKER_OUTPUT": task.output, "STOKER_DATA": task.data}
        environment = {**os.environ, **given, **(variables or {})}
        self.messages: list[Message] = []
        self._heard = threading.Condition()
        self._start(folder, command, environment)

    def _start(self, folder: Path, command: Sequence[str] | Callable[[], None], environment: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair()
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            os.dup2(writing, 1)
            os.dup2(theirs.fileno(), CHANNEL)
            os.chdir(folder)
            _become(command, environment)
        theirs.close()
        os.close(writing)
        self.socket, self._printed = ours, os.fdopen(reading)
        self._code: int | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._reader.join(10)
        self._printed.close()
        self.socket.close()

    def _read(self) -> None:
        with self.socket.makefile("rb") as lines:
            try:
                for line in lines:
                    with self._heard:
                        self.messages.append(json.loads(line))
                        self._heard.notify_all()
            except ConnectionError:
                return

    def printed(self) -> Iterator[str]:
        """The lines that it prints."""
        for line in self._printed:
            yield line.rstrip("\n")

    def until(self, kind: str, count: int = 1) -> Message:
        """Wait for the message of a kind, or the second or third of them."""
        with self._heard:
            arrived = self._heard.wait_for(lambda: len(self.of_kind(kind)) >= count, 60)
            assert arrived, f"no {kind} message; there were {[message['type'] for message in self.messages]}"
            return self.of_kind(kind)[count - 1]

    def of_kind(self, kind: str) -> list[Message]:
        """The messages of a kind so far."""
        return [message for message in self.messages if message["type"] == kind]

    def points(self, key: str) -> dict[int, float]:
        """The points of a curve so far."""
        found: dict[int, float] = {}
        for message in self.of_kind("metrics"):
            if message["key"] == key:
                found |= dict(zip(message["steps"], message["values"], strict=True))
        return found

    def source(self) -> CheckpointSource | None:
        """The last checkpoint that it announced."""
        announced = self.of_kind("checkpoint")
        if not announced:
            return None
        path = str(self.scratch / announced[-1]["path"])
        return CheckpointSource(path, announced[-1]["sha256"], announced[-1]["step"], announced[-1]["epoch"])

    def ask(self, kind: str) -> None:
        """Send a request."""
        self.socket.sendall(json.dumps({"type": kind}).encode() + b"\n")

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def wait(self) -> int:
        """Exit code, negative for a signal; all messages are there."""
        if self._code is None:
            _, status = os.waitpid(self.pid, 0)
            self._code = os.waitstatus_to_exitcode(status)
            self._reader.join(10)
        return self._code


def _become(command: Sequence[str] | Callable[[], None], environment: Mapping[str, str]) -> None:
    """In the forked child: be a script; an interpreter of its own where the command begins with one."""
    code = 70
    try:
        if not callable(command) and command[0] == sys.executable:
            os.execve(command[0], list(command), environment)
        os.environ.clear()
        os.environ.update(environment)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sys.stdout = os.fdopen(os.dup(1), "w", buffering=1)
        code = _run(command)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _run(command: Sequence[str] | Callable[[], None]) -> int:
    """Do what an interpreter does: the script, the hook of an exception, the farewells."""
    import atexit

    try:
        if callable(command):
            command()
        else:
            sys.argv = list(command)
            runpy.run_path(command[0], run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    finally:
        atexit._run_exitfuncs()
    return 0
