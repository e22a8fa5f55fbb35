"""From a submit over HTTP to the first SGD step done, on a warm idle worker, against ``python`` started by hand.

    python bench/start_latency.py [--n 20] [--by-hand 5]

Real parts: PostgreSQL, Redis, the API and one worker, each a process of its own. The clock starts before the POST is
sent and stops when the database knows that the first step was done; by hand it stops when that step is done. By hand
means: import torch and torchvision, map the same decoded images, build the same network, make the same step.
"""

import argparse
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import torch
from sqlalchemy import func, select

from stoker.jobs import accounts
from stoker.jobs.database import connect, sessions, upgrade
from stoker.jobs.models import Attempt, Job
from stoker.stack.postgres import Postgres
from stoker.stack.redis import Redis

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


class Bench:
    """A stack of real parts."""

    def __init__(self, home: Path, postgres: Postgres, redis: Redis) -> None:
        """Migrate, make a user, start API and worker."""
        url = postgres.create_database("bench")
        upgrade(url)
        self.home, self.engine = home, connect(url)
        self.sessions = sessions(self.engine)
        with self.sessions() as session:
            token = accounts.bootstrap(session)
            session.commit()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("STOKER_")}
        environ |= {"STOKER_DATABASE_URL": url, "STOKER_BROKER_URL": redis.url, "STOKER_HOME": str(home)}
        environ |= {"STOKER_API_PORT": str(port), "STOKER_WORKER_NAME": "bench", "STOKER_WORKER_DEVICES": "none"}
        self.processes = []
        for module in ("stoker.api", "stoker.workers"):
            with (home / f"{module}.log").open("wb") as log:
                command = [sys.executable, "-m", module]
                self.processes.append(subprocess.Popen(command, env=environ, stdout=log, stderr=log))
        headers = {"Authorization": f"Bearer {token}"}
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=10)
        self._wait(lambda: (home / "run" / "worker-bench.health").exists() and self._ready(), 120)

    def _ready(self) -> bool:
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def _wait(self, condition: object, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not condition():  # type: ignore[operator]
            if time.monotonic() > until or any(process.poll() is not None for process in self.processes):
                raise SystemExit("".join(path.read_text()[-3000:] for path in self.home.glob("*.log")))
            time.sleep(0.02)

    def submit(self) -> tuple[float, dict[str, float]]:
        """Submit a job; seconds to its first step, and to each part on the way."""
        spec = {"name": "latency", "kind": "train", "train": {"dataset": "digits", "epochs": 1}}
        with self.sessions() as session:
            offset = float(session.scalar(select(func.extract("epoch", func.clock_timestamp()))) or 0) - time.time()
        began = time.time()
        answer = self.http.post("/api/v1/jobs", json=spec)
        answered = time.time() - began
        answer.raise_for_status()
        number = answer.json()["number"]
        self._wait(lambda: self._state(number) in ("succeeded", "failed"), 60)
        with self.sessions() as session:
            attempt = session.scalars(select(Attempt).where(Attempt.job_number == number)).one()
            times = {"placed": attempt.placed_at, "claimed": attempt.claimed_at, "first step": attempt.first_step_at}
        parts = {name: at.timestamp() - offset - began for name, at in times.items() if at}
        return parts["first step"], {"answered": answered} | parts

    def _state(self, number: int) -> str:
        with self.sessions() as session:
            return session.get_one(Job, number).state

    def close(self) -> None:
        """Stop everything."""
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            process.wait(30)
        self.engine.dispose()


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
    home = Path(tempfile.mkdtemp(prefix="stoker-bench-", dir="/tmp"))
    home.chmod(0o711)
    with Postgres.start(home) as postgres, Redis.start(home) as redis:
        bench = Bench(home, postgres, redis)
        try:
            for _ in range(3):  # the images are decoded once, statements and connections are warm
                bench.submit()
                time.sleep(0.5)
            images = next((home / "cache" / "datasets").glob("digits*.safetensors"))
            by_hand(images)  # files are in memory from here on
            seconds, parts, hand = [], [], []
            for number in range(chosen.n):
                time.sleep(0.5)
                taken, on_the_way = bench.submit()
                seconds.append(taken)
                parts.append(on_the_way)
                if number * chosen.by_hand // chosen.n > len(hand) - 1:  # in turns: the neighbours are the same
                    hand.append(by_hand(images))
        finally:
            bench.close()
    print(line("submit to first step", seconds))
    for name in parts[0]:
        print(line(f"  to {name}", [one[name] for one in parts]))
    print(line("python by hand", hand))
    print(f"{statistics.median(hand) / statistics.median(seconds):.0f} × sooner (medians)")


if __name__ == "__main__":
    main()
