"""Trainers that misbehave, for a fork server without torch: ``python -m tests.support.odd_trainers DESCRIPTOR``.

A job chooses the behaviour by its seed; see ``BEHAVIOURS``.
"""

import argparse
import errno
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stoker.training import cache
from stoker.workers import forkserver
from tests.support.conversation import Trainer
from tests.support.widening import let_write


def succeed(trainer: Trainer) -> int:
    """Say what a short training says."""
    trainer.say(type="started", device="cpu", torch="none")
    trainer.say(type="first_step", seconds=time.time())
    trainer.say(type="metrics", key="loss", steps=[1, 2], values=[2.0, 1.0])
    sys.stdout.write("a line in the log\n")
    return trainer.succeed()


def stubborn(trainer: Trainer) -> int:
    """Ignore SIGTERM and every request."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    trainer.say(type="first_step", seconds=time.time())
    while True:
        trainer.work()


def killed(trainer: Trainer) -> int:
    """Be killed, by whomever."""
    trainer.work()
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def family(trainer: Trainer) -> int:
    """Leave a grandchild in a session of its own, which ignores SIGTERM and holds the socket open."""
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        trainer.say(type="note", text=f"grandchild {os.getpid()}")
        while True:
            time.sleep(1)
    os.wait()
    trainer.work()
    return stubborn(trainer)


def liar(trainer: Trainer) -> int:
    """Claim a better accuracy than the predictions have."""
    return trainer.succeed(accuracy=1.0)


def hostile(trainer: Trainer) -> int:
    """Say what no trainer should say, then end well."""
    send = trainer.connection.sendall
    send(b"x" * 3_000_000 + b"\n")
    send(b"\xff\x00\x1b[31m\n[]\nnull\n" + b"[" * 5000 + b"\n")
    send(b'{"type":"metrics","key":"loss","steps":[1],"values":[NaN]}\n')
    trainer.say(type="metrics", key="loss", steps=[5, 6], values=[1.0, 2.0])
    trainer.say(type="metrics", key="loss", steps=[4], values=[1.0])
    trainer.say(type="metrics", key="loss", steps=[2**63], values=[1.0])
    trainer.say(type="progress", phase="train", epoch=-1, epochs=1, step=1, steps=1, images_per_second=None)
    trainer.say(type="succeed", state="succeeded")
    trainer.say(type="result", path="../../../etc/passwd")
    trainer.say(type="checkpoint", path="/etc/passwd", step=1, epoch=1, bytes=1, sha256="0" * 64, metrics={})
    trainer.checkpoint(b"changed", announced=b"what was announced")
    return trainer.succeed()


def describe(trainer: Trainer) -> int:
    """Print what a trainer can see of the worker."""
    seen = {
        "environment": dict(os.environ),
        "exec": Path("/proc/self/environ").read_bytes().decode().split("\0"),
        "descriptors": sorted(int(entry.name) for entry in Path("/proc/self/fd").iterdir()),
        "folder": str(Path.cwd()),
        "task": trainer.task,
    }
    sys.stdout.write(json.dumps(seen))
    trainer.say(type="first_step", seconds=time.time())
    return trainer.succeed()


def obedient(trainer: Trainer) -> int:
    """Work until asked to stop, then hand in a checkpoint; going on from one, succeed."""
    if trainer.task["checkpoint"]:
        return trainer.succeed()
    trainer.say(type="first_step", seconds=time.time())
    while trainer.asked() != "stop":
        trainer.work()
    trainer.checkpoint()
    trainer.say(type="stopped", step=trainer.step)
    return 0


def patient(trainer: Trainer) -> int:
    """Work until a test says that it is enough, then succeed."""
    trainer.say(type="first_step", seconds=time.time())
    while not (_marks(trainer.scratch) / "enough").exists():
        trainer.work()
    return trainer.succeed()


def silent(trainer: Trainer) -> int:
    """Make a step, then hang."""
    trainer.work()
    while True:
        time.sleep(3600)


def _first_time(trainer: Trainer) -> bool:
    """Whether no attempt has come here before, of all jobs of this home with this behaviour."""
    mark = _marks(trainer.scratch) / str(trainer.task["config"]["seed"])
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _marks(scratch: Path) -> Path:
    return scratch.parents[2] / "marks"


def killed_once(trainer: Trainer) -> int:
    """Be killed at the first attempt, succeed at the second."""
    return killed(trainer) if _first_time(trainer) else trainer.succeed()


def _call_device_broken(trainer: Trainer) -> int:
    trainer.say(type="failure", **{"class": "device_error"}, evidence="CUDA error: unspecified", fix="")
    return 1


def device_error(trainer: Trainer) -> int:
    """Call the device broken at the first attempt, succeed at the second."""
    return _call_device_broken(trainer) if _first_time(trainer) else trainer.succeed()


def broken_device(trainer: Trainer) -> int:
    """The same, and be right: training steps that the worker tries fail, too, until a test removes the mark."""
    if not _first_time(trainer):
        return trainer.succeed()
    (_marks(trainer.scratch) / "broken").touch()
    return _call_device_broken(trainer)


def flood(trainer: Trainer) -> int:
    """Print 40 MB, then a last line."""
    for _ in range(40):
        os.write(1, b"y" * 1_000_000)
    sys.stdout.write("\nthe last line\n")
    return trainer.succeed()


def hoard(trainer: Trainer) -> int:
    """Hold more and more memory, 10 MB at a time, in two processes."""
    trainer.say(type="first_step", seconds=time.time())
    os.fork()
    held = []
    while True:
        held.append(b"x" * 10_000_000)
        time.sleep(0.005)


def bomb(trainer: Trainer) -> int:
    """Fork without end, each into a session of its own; stop where nothing else does, before the machine does."""
    trainer.say(type="first_step", seconds=time.time())
    while int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2]) < 2000:
        try:
            if os.fork() == 0:
                os.setsid()
        except BlockingIOError:
            time.sleep(0.001)
    return 1


def chain(trainer: Trainer) -> int:
    """Fork children of children, 300 deep, then wait to be found."""
    trainer.say(type="first_step", seconds=time.time())
    for _ in range(300):
        if os.fork():
            break
    while True:
        time.sleep(60)


BEHAVIOURS: list[Callable[[Trainer], int]] = [
    succeed,
    stubborn,
    killed,
    family,
    liar,
    hostile,
    describe,
    obedient,
    silent,
    flood,
    killed_once,
    device_error,
    broken_device,
    hoard,
    bomb,
    chain,
    patient,
]


def run(document: dict[str, Any], connection: socket.socket) -> int:
    """Do what the seed says."""
    if document["kind"] == "canary":
        broken = _marks(Path.cwd() / "attempt") / "broken"
        fails = "--canary-fails" in sys.argv or broken.exists()
        return int(fails or "broken" in os.environ["CUDA_VISIBLE_DEVICES"])
    if document["kind"] == "prepare":
        path = cache.prepared(Path(document["dataset"]["cache"]), document["dataset"]["name"])
        path.parent.mkdir(parents=True)
        path.touch()  # nobody here reads it
        return 0
    seed: int = document["config"]["seed"]
    return BEHAVIOURS[seed](Trainer(document, connection))


def fail_forks(while_exists: Path) -> None:
    """Let forks fail, as on a machine that has no more processes to give, as long as a file is there."""
    fork = os.fork

    def failing() -> int:
        if while_exists.exists():
            raise BlockingIOError(errno.EAGAIN, "no more processes")
        return fork()

    os.fork = failing


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cpu-only", action="store_true")  # as every worker without devices says
    parser.add_argument("--frozen-limit", type=float, default=forkserver.FROZEN_LIMIT_SECONDS)
    parser.add_argument("--canary-fails", action="store_true")
    parser.add_argument("--forks-fail-while", type=Path)
    parser.add_argument("descriptor", type=int)
    arguments = parser.parse_args()
    forkserver.FROZEN_LIMIT_SECONDS = arguments.frozen_limit
    if arguments.forks_fail_while:
        fail_forks(arguments.forks_fail_while)
    let_write(_marks)
    forkserver.serve(arguments.descriptor, run)


if __name__ == "__main__":
    main()
