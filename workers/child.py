"""The one module of the workers that loads torch: a fork server for the built-in recipes.

Started as ``python -m stoker.workers.child DESCRIPTOR`` by the worker, never imported by it.
"""

import os
import random
import socket
import sys
from typing import Any

import numpy as np
import torch

from stoker.training import trainer
from stoker.training.channel import Channel
from stoker.training.config import Task
from stoker.workers import forkserver


def run_task(document: dict[str, Any], connection: socket.socket) -> int:
    """Run one task in a forked trainer; returns its exit code."""
    seed = int.from_bytes(os.urandom(4), "little")  # whatever the recipe does not seed differs from child to child
    random.seed(seed)
    np.random.seed(seed)  # the legacy generator is the one that others share
    torch.manual_seed(seed)
    if document["kind"] == "canary":
        return canary(document["device"])
    return trainer.run(Task.from_document(document), Channel(connection))


def canary(device: str) -> int:
    """Make one training step of a tiny network, to learn at start whether forked children can train here."""
    torch.set_num_threads(1)
    model = torch.nn.Linear(4, 2).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = model(torch.ones(2, 4, device=device)).square().mean()
    loss.backward()
    optimizer.step()
    return 0 if torch.isfinite(model.weight).all() else 1


def main() -> None:
    """Load, warm up, serve."""
    trainer.warm_up()
    forkserver.serve(int(sys.argv[1]), run_task)


if __name__ == "__main__":
    main()
