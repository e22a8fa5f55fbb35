"""From a submit over HTTP to the first SGD step done, on a warm idle worker, against ``python`` started by hand.

    python bench/start_latency.py [--n 20] [--by-hand 5]

Real parts: PostgreSQL, Redis, the API and one worker, each a process of its own. The clock starts before the POST is
sent and stops when the database knows that the first step was done; by hand it stops when that step is done. By hand
means: import torch and torchvision, map the same decoded images, build the same network, make the same step.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from _stack import Stack, stack
from sqlalchemy import func, select

from stoker.jobs.models import Attempt

BY_HAND = """
import sys, time
import torch, torchvision
from safetensors import safe_open
from torch import nn, optim
torch.set_num_threads(1)
with safe_open(sys.argv[1], "pt") as data:
    images, labels = data.get_slice("train_images")[:4], data.get_slice("train_labels")[:4]
net = nn.Sequential(nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
                    nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))
optimizer = optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
loss = nn.functional.cross_entropy(net(images.float() / 127.5 - 1), labels)
loss.backward()
optimizer.step()
print(time.time())
"""


def by_hand(images: Path) -> float:
    """Seconds from the start of a fresh interpreter to its first step done."""
    began = time.time()
    done = subprocess.run([sys.executable, "-c", BY_HAND, str(images)], capture_output=True, check=True, text=True)
    return float(done.stdout) - began


def submit(stack: Stack) -> tuple[float, dict[str, float]]:
    """Submit a job; seconds to its first step, and to each part on the way."""
    spec = {"name": "latency", "kind": "train", "train": {"dataset": "digits", "epochs": 1}}
    with stack.sessions() as session:
        offset = float(session.scalar(select(func.extract("epoch", func.clock_timestamp()))) or 0) - time.time()
    began = time.time()
    answer = stack.http.post("/api/v1/jobs", json=spec)
    answered = time.time() - began
    answer.raise_for_status()
    number = answer.json()["number"]
    stack.wait(lambda: stack.state_of(number) in ("succeeded", "failed"), 60)
    with stack.sessions() as session:
        attempt = session.scalars(select(Attempt).where(Attempt.job_number == number)).one()
        times = {"placed": attempt.placed_at, "claimed": attempt.claimed_at, "first step": attempt.first_step_at}
    parts = {name: at.timestamp() - offset - began for name, at in times.items() if at}
    return parts["first step"], {"answered": answered} | parts


def line(name: str, values: list[float]) -> str:
    """One line of the table, in milliseconds."""
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    return f"{name:<28} p50 {1000 * statistics.median(values):8.1f} ms   p95 {1000 * p95:8.1f} ms   n {len(values)}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--n", type=int, default=20)
    parser.add_argument("--by-hand", type=int, default=5)
    chosen = parser.parse_args()
    print(
        f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, torch {torch.__version__}"
    )
    with stack() as running:
        for _ in range(3):  # the images are decoded once, statements and connections are warm
            submit(running)
            time.sleep(0.5)
        images = next((running.home / "cache" / "datasets").glob("digits*.safetensors"))
        by_hand(images)  # files are in memory from here on
        seconds, parts, hand = [], [], []
        for number in range(chosen.n):
            time.sleep(0.5)
            taken, on_the_way = submit(running)
            seconds.append(taken)
            parts.append(on_the_way)
            if number * chosen.by_hand // chosen.n > len(hand) - 1:  # in turns: the neighbours are the same
                hand.append(by_hand(images))
    print(line("submit to first step", seconds))
    for name in parts[0]:
        print(line(f"  to {name}", [one[name] for one in parts]))
    print(line("python by hand", hand))
    print(f"{statistics.median(hand) / statistics.median(seconds):.0f} × sooner (medians)")


if __name__ == "__main__":
    main()
