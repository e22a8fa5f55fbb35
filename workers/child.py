"""The one module of the workers that loads torch: a fork server for the built-in recipes.

Started as ``python -m stoker.workers.child [--cpu-only] DESCRIPTOR`` by the worker, never imported by it.
"""

import ctypes
import itertools
import json
import os
import random
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from stoker.training import batches, models, optimizers, trainer
from stoker.training.channel import Channel
from stoker.training.config import OptimizerConfig, Task
from stoker.workers import birth, forkserver


def run_task(document: dict[str, Any], connection: socket.socket) -> int:
    """Run one task in a forked trainer; returns its exit code."""
    reseed()
    if document["kind"] == "canary":
        return canary(document["device"]) or overdraw(document["device"], **document.get("share", {}))
    return trainer.run(Task.from_document(document), Channel(connection))


def run_fresh(task: str) -> NoReturn:
    """In an interpreter of its own: run the task that lies in this file, and end as a forked trainer does."""
    birth.speak_when_hurt()
    os._exit(run_task(json.loads(Path(task).read_text()), socket.socket(fileno=birth.CHANNEL)))


def reseed() -> None:
    """Start all random generators anew: what a recipe does not seed shall differ from child to child."""
    seed = int.from_bytes(os.urandom(4), "little")
    random.seed(seed)
    np.random.seed(seed)  # the legacy generator is the one that others share
    torch.manual_seed(seed)


def canary(device: str) -> int:
    """Make one training step of a tiny network, to learn at start whether forked children can train here."""
    torch.set_num_threads(1)
    model = torch.nn.Linear(4, 2).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = model(torch.ones(2, 4, device=device)).square().mean()
    loss.backward()
    optimizer.step()
    return 0 if torch.isfinite(model.weight).all() else 1


def overdraw(device: str, granted_bytes: int = 0, refused_bytes: int = 0) -> int:
    """Take memory that is granted, then more, which must be refused; 0 unless it was not."""
    if not refused_bytes:
        return 0
    torch.empty(granted_bytes, dtype=torch.uint8, device=device)
    try:
        torch.empty(refused_bytes, dtype=torch.uint8, device=device)
    except torch.OutOfMemoryError:
        return 0
    return 1


def rehearse() -> None:
    """Make a few steps of nothing, in a child that waits for its order.

    The first step of a fresh child touches pages that it shares with the server, each of which is then copied, and
    loads what torch loads on first use: 20 ms that are over when the order comes. Only for workers without a GPU:
    a backward asks for CUDA's devices, and which of them are the child's is not known before the order.
    """
    torch.set_num_threads(1)
    reseed()
    cpu = torch.device("cpu")
    model = models.create("tutorial-cnn", 10)
    optimizer = optimizers.create(OptimizerConfig(), model.parameters(), cpu)
    images, labels, places = torch.zeros(32, 3, 32, 32, dtype=torch.uint8), torch.zeros(32).long(), torch.arange(32)
    form = models.input_form("tutorial-cnn", 32, 32, cpu)
    steps = batches.Batches(images, labels, places, batch_size=4, form=form, augmentations=(), seed=0, device=cpu)
    for inputs, expected in itertools.islice(steps.epoch(0, 0), 3):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), expected).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    ctypes.CDLL(None).malloc_trim(0)  # what was taken for this goes back


def main() -> None:
    """Load, warm up, serve."""
    trainer.warm_up()
    forkserver.serve(int(sys.argv[-1]), run_task, rehearse if "--cpu-only" in sys.argv else lambda: None)


if __name__ == "__main__":
    main()
