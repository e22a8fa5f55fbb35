"""Private memory of each further trainer before its own tensors, against a fresh ``python`` that imports the same.

    python bench/trainer_memory.py [--n 4]

Trainers are forked from the worker's fork server and wait for their order: loaded, warm, with no model of a job yet.
Private: what the process alone holds (Private_Clean + Private_Dirty of /proc/PID/smaps_rollup).
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from stoker.training.config import DatasetSource, Task, TrainConfig
from stoker.workers import processes
from stoker.workers.orders import Order
from stoker.workers.trainers import COMMAND, ForkServer, Trainer

FRESH = "import torch, torchvision, sys; print(1, flush=True); sys.stdin.read()"
SETTLE_SECONDS = 1.0


def private_bytes(pid: int) -> int:
    """Memory that a process shares with nobody."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))


def fresh() -> int:
    """Private memory of an interpreter that has imported torch and torchvision."""
    process = subprocess.Popen([sys.executable, "-c", FRESH], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    if process.stdout is None:
        raise SystemExit("no pipe")
    process.stdout.readline()
    found = private_bytes(process.pid)
    process.communicate(b"")
    return found


def spares(server: ForkServer) -> list[int]:
    """The children of the fork server."""
    return processes.children(server.pid or 0)


def training(server: ForkServer, home: Path, number: int) -> Trainer:
    """Let the waiting child train for a long time, so that another one is forked."""
    scratch = home / str(number)
    scratch.mkdir()
    config = TrainConfig("digits", epochs=100_000)
    task = Task("train", config, DatasetSource("digits", str(home / "cache")), str(scratch))
    order = Order(scratch.name, task.to_document(), {}, str(scratch), "bench", processes.boottime() + 3600)
    log = os.open(scratch / "log", os.O_WRONLY | os.O_CREAT)
    try:
        return server.spawn(order, log)
    finally:
        os.close(log)


def measure(command: Sequence[str], count: int, home: Path) -> tuple[list[int], list[int]]:
    """Private bytes of waiting children, one after the other, and of the same ones while they train digits."""
    server = ForkServer(os.environ, command)
    server.start()
    server.wait_ready()
    waiting, busy, trainers = [], [], []
    for number in range(count):
        time.sleep(SETTLE_SECONDS)
        (spare,) = set(spares(server)) - {trainer.pid for trainer in trainers}
        waiting.append(private_bytes(spare))
        trainers.append(training(server, home, number))
        while not any(message["type"] == "first_step" for message in trainers[-1].wait(1.0)):
            if trainers[-1].gone:
                raise SystemExit((home / str(number) / "log").read_text())
        busy.append(private_bytes(spare))
        trainers[-1].kill()
        while not trainers[-1].gone:
            trainers[-1].wait(0.1)
        trainers[-1].close()
    server.close()
    return waiting, busy


def line(name: str, values: list[int]) -> str:
    """One line of the table."""
    return f"{name:<52} median {statistics.median(values) / 1e6:7.1f} MB   max {max(values) / 1e6:7.1f} MB"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--n", type=int, default=4)
    chosen = parser.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}, n {chosen.n}")
    for name, command in (("on a worker with GPUs", COMMAND), ("on a worker without", (*COMMAND, "--cpu-only"))):
        home = Path(tempfile.mkdtemp(prefix="stoker-bench-"))
        waiting, busy = measure(command, chosen.n, home)
        print(line(f"trainer that waits, {name}", waiting))
        print(line("  after its first step on digits", busy))
    print(line("fresh python with torch and torchvision", [fresh() for _ in range(chosen.n)]))


if __name__ == "__main__":
    main()
