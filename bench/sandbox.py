"""What confinement costs and holds: attacks blocked, start, training speed, a worker's memory under a flood of prints.

    python bench/sandbox.py [--starts 200] [--rounds 10] [--flood-mb 1000]

Attacks are those of tests/sandbox, from a forked job. A start is what confining adds between a job's order and its
first line. Training: the same steps in a confined process and in one that is not, in turns, by the processor's time.
The flood: what a script prints through a real worker, and what that worker and its fork server grow by.
"""

import argparse
import os
import pickle
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _stack import stack

from stoker.client.client import Client
from stoker.training import models, optimizers
from stoker.training.config import OptimizerConfig
from stoker.workers import processes, sandbox
from stoker.workers.bounds import Bounds
from stoker.workers.sandbox import Confinement

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
STEPS = 600
ATTACKS = (
    *("tests/sandbox/test_attacks.py::test_no_attack_succeeds_from_a_job[forked]",),
    *("tests/sandbox/test_attacks.py::test_no_attack_succeeds_from_a_job[exec]",),
)
COUNT = "from tests.sandbox.attacks import ATTACKS; print(len(ATTACKS))"
FLOOD = "import sys\nfor _ in range(int(sys.argv[1])):\n    sys.stdout.write('x' * 99 + '\\n')\n"


def in_a_child(work: Callable[[], Any]) -> Any:
    """What a function returns in a forked child, which ends afterwards."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(into, pickle.dumps(work()))
        finally:
            os._exit(0)
    os.close(into)
    with os.fdopen(out, "rb") as file:
        found = pickle.load(file)
    os.waitpid(pid, 0)
    return found


def start(folder: Path) -> float:
    """Milliseconds that confining takes in a child that has rehearsed, as a waiting trainer has."""
    document = Bounds("open").confinement(folder, memory_bytes=10**10) or {}

    def work() -> float:
        sandbox.rehearse()
        began = time.perf_counter()
        sandbox.confine(Confinement.from_document(document))
        return 1000 * (time.perf_counter() - began)

    return float(in_a_child(work))


def training(folder: Path, *, confined: bool) -> float:
    """Steps of the tutorial's network per second of the processor."""
    document = Bounds("open").confinement(folder, memory_bytes=10**10) or {}

    def work() -> float:
        if confined:
            sandbox.confine(Confinement.from_document(document))
        torch.set_num_threads(1)
        torch.manual_seed(0)
        net = models.create("tutorial-cnn", 10)
        optimizer = optimizers.create(OptimizerConfig(), net.parameters(), CPU)
        inputs, labels = torch.randn(4, 3, 32, 32), torch.arange(4)
        for step in range(STEPS + 50):
            if step == 50:
                began = time.process_time()
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(inputs), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return STEPS / (time.process_time() - began)

    return float(in_a_child(work))


def flooded(megabytes: int) -> tuple[float, float, float]:
    """Megabytes that a worker and its fork server grew by at most while a job printed; seconds; megabytes kept."""
    with stack() as running:
        worker = running.processes[-1].pid
        code = running.home / "flood"
        code.mkdir()
        (code / "flood.py").write_text(FLOOD)
        client = Client(running.url, running.token)
        run = partial(client.run, code=code)
        run(["python", "flood.py", "1000"]).wait(60)  # what any job brings along
        before, most, began = own_bytes(worker), 0, time.monotonic()
        job = run(["python", "flood.py", str(10_000 * megabytes)])
        while running.state_of(job.number) not in ("succeeded", "failed"):
            most = max(most, own_bytes(worker))
            time.sleep(0.05)
        seconds = time.monotonic() - began
        if (state := running.state_of(job.number)) != "succeeded":
            raise SystemExit(f"the flood {state}")
        kept = sum(len(chunk.encode()) for chunk in job.logs())
        return (most - before) / 1e6, seconds, kept / 1e6


def own_bytes(worker: int) -> int:
    """Memory of a worker and its fork server that is no file's; what they share with children counts in full."""
    texts = [Path(f"/proc/{pid}/status").read_text() for pid in (worker, *processes.children(worker))]
    return sum(1024 * int(text.partition("RssAnon:")[2].split()[0]) for text in texts)


def attacks() -> str:
    """How many attacks were tried, and whether one succeeded."""
    count = subprocess.run([sys.executable, "-c", COUNT], cwd=ROOT, capture_output=True, check=True, text=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *ATTACKS]
    tried = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, text=True)
    if tried.returncode != 0:
        raise SystemExit(tried.stdout[-3000:])
    return f"{count.stdout.strip()} tried from a forked and from an exec'ed job, all blocked"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--starts", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--flood-mb", type=int, default=1000)
    chosen = parser.parse_args()
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs"
    print(f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}, {load}")
    if isinstance(able := sandbox.available(), str):
        raise SystemExit(able)
    print(f"attacks    {attacks()}; Landlock {able}")
    folder = Path(tempfile.mkdtemp(prefix="stoker-bench-"))
    try:
        starts = sorted(start(folder) for _ in range(chosen.starts))
        middle, p95 = statistics.median(starts), starts[round(0.95 * (len(starts) - 1))]
        print(f"start      median {middle:.2f} ms   p95 {p95:.2f} ms   least {starts[0]:.2f} ms   n {len(starts)}")
        speeds: dict[bool, list[float]] = {True: [], False: []}
        for number in range(2 * chosen.rounds):
            confined = number % 4 in (0, 3)  # each as often first as second
            speeds[confined].append(training(folder, confined=confined))
        inside, outside = statistics.median(speeds[True]), statistics.median(speeds[False])
        ratios = [one / other for one, other in zip(speeds[True], speeds[False], strict=True)]
        print(
            f"training   confined {inside:.0f} steps/s, not {outside:.0f}; ratio median "
            f"{statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}   n {len(ratios)}"
        )
    finally:
        shutil.rmtree(folder)
    grown, seconds, kept = flooded(chosen.flood_mb)
    print(f"flood      {chosen.flood_mb} MB in {seconds:.0f} s: worker +{grown:.1f} MB, {kept:.1f} MB kept")


if __name__ == "__main__":
    main()
