"""A trainer in a forked process of its own, as the fork server starts it."""

import json
import os
import signal
import socket
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stoker.training.channel import Channel
from stoker.training.config import CheckpointSource, DatasetSource, Task, TrainConfig
from stoker.training.trainer import run

Message = dict[str, Any]


def task(config: TrainConfig, cache: Path, scratch: Path, **fields: Any) -> Task:
    """A task on a data set of the cache, in a scratch folder that is made."""
    scratch.mkdir(parents=True, exist_ok=True)
    source = fields.pop("source", None)
    dataset = DatasetSource(config.dataset, str(cache), source=str(source) if source else None)
    return Task(fields.pop("kind", "train"), config, dataset, str(scratch), **fields)


def source_of(message: Message, scratch: Path) -> CheckpointSource:
    """The checkpoint that a message announced."""
    return CheckpointSource(str(scratch / message["path"]), message["sha256"], message["step"])


class Child:
    """A running trainer; leaving the block kills it."""

    def __init__(self, given: Task, main: Callable[[Task, Channel], int] = run) -> None:
        self.scratch = Path(given.scratch)
        ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            _child_main(main, given, theirs)
        theirs.close()
        ours.settimeout(60)
        self.socket = ours
        self._lines = ours.makefile("rb")
        self._code: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._lines.close()
        self.socket.close()

    def messages(self) -> Iterator[Message]:
        """Every message until the trainer ends."""
        for line in self._lines:
            yield json.loads(line)

    def until(self, kind: str) -> Message:
        """The next message of a kind; the ones before it are passed over."""
        seen = []
        for message in self.messages():
            if message["type"] == kind:
                return message
            seen.append(message["type"])
        raise AssertionError(f"the trainer ended without a {kind} message, after {seen[-5:]}")

    def ask(self, kind: str) -> None:
        """Send a request."""
        self.socket.sendall(json.dumps({"type": kind}).encode() + b"\n")

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def wait(self) -> int:
        """Exit code of the trainer, negative for a signal."""
        if self._code is None:
            _, status = os.waitpid(self.pid, 0)
            self._code = os.waitstatus_to_exitcode(status)
        return self._code


def _child_main(main: Callable[[Task, Channel], int], given: Task, connection: socket.socket) -> None:
    code = 70
    try:
        code = main(given, Channel(connection))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def finish(given: Task) -> list[Message]:
    """Run a task to its end; all its messages."""
    with Child(given) as child:
        messages = list(child.messages())
        assert child.wait() == (1 if messages[-1]["type"] == "failure" else 0), messages[-1]
    return messages


def of_kind(messages: list[Message], kind: str) -> list[Message]:
    """The messages of a kind."""
    return [message for message in messages if message["type"] == kind]
