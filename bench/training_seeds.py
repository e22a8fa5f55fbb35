"""Accuracy of the tutorial's recipe (batch 4, SGD .001/.9, 2 epochs) over several seeds.

STOKER_DEMO_DATA=cifar10-jpeg.zip python bench/training_seeds.py [--seeds 5]
"""

import argparse
import json
import multiprocessing
import os
import socket
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from stoker.training import datasets
from stoker.training.channel import Channel
from stoker.training.config import DatasetSource, Task, TrainConfig
from stoker.training.trainer import run


def result_of(given: tuple[int, DatasetSource]) -> dict[str, Any]:
    """Train with one seed through the trainer itself; its result."""
    seed, source = given
    with tempfile.TemporaryDirectory() as scratch:
        ours, theirs = socket.socketpair()
        child = multiprocessing.Process(
            target=_train, args=(Task("train", TrainConfig(source.name, seed=seed), source, scratch), theirs)
        )
        child.start()
        theirs.close()
        with ours, ours.makefile("rb") as lines:
            messages = [json.loads(line) for line in lines]
        child.join()
        if messages[-1]["type"] != "result":
            sys.exit(f"seed {seed}: {messages[-1]}")
        result: dict[str, Any] = json.loads((Path(scratch) / "result.json").read_text())
    print(f"seed {seed}: {result['accuracy']:.2%} in {result['train_seconds']:.1f} s", flush=True)
    return result


def _train(task: Task, connection: socket.socket) -> None:
    run(task, Channel(connection))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    data = os.environ.get("STOKER_DEMO_DATA")
    if not data:
        sys.exit("set STOKER_DEMO_DATA to an archive or a folder of class folders")
    cache = os.environ.get("STOKER_CACHE") or tempfile.mkdtemp()
    source = DatasetSource("demo", cache, source=data)
    datasets.prepare(source, threads=1, watch=lambda *_: None)
    multiprocessing.set_start_method("spawn")
    results = [result_of((seed, source)) for seed in range(asked.seeds)]
    accuracies = [result["accuracy"] for result in results]
    print(
        f"mean {statistics.mean(accuracies):.2%}, {min(accuracies):.2%} to {max(accuracies):.2%}, {asked.seeds} seeds"
    )
    print(json.dumps({"bench": "training_seeds", "accuracies": accuracies}))


if __name__ == "__main__":
    main()
