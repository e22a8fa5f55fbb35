"""A training step of nothing, in a forked child, confined as trainers are: whether they can work here."""

import itertools
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stoker.workers import processes
from stoker.workers.bounds import Bounds
from stoker.workers.devices import Inventory, cuda_environment
from stoker.workers.orders import Order
from stoker.workers.trainers import ForkServer

SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Canary:
    """Makes training steps on demand."""

    fork_server: ForkServer
    inventory: Inventory
    environment: Mapping[str, str]  # what every trainer may see
    scratch: Path
    bounds: Bounds
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def step(self, uuids: list[str], check: Callable[[], None] = lambda: None) -> int | None:
        """Make one step on the first of these devices; the exit code of the child, None if it did not end in time.

        Raises Unavailable, OSError, and what ``check`` raises.
        """
        self.scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        order = Order(
            id=f"canary {next(self._numbers)}",
            task={"kind": "canary", "device": self.inventory.torch_device(uuids)},
            environment={**self.environment, **cuda_environment(uuids)},
            scratch=str(self.scratch),
            title="canary",
            deadline=processes.boottime() + SECONDS,
            confinement=self.bounds.confinement(self.scratch, devices=self.inventory.files(uuids)),
        )
        trainer = self.fork_server.spawn(order, sys.stderr.fileno(), check)
        until = time.monotonic() + SECONDS
        while not trainer.gone and time.monotonic() < until:
            trainer.wait(1.0)
            check()
        trainer.kill()
        trainer.close()
        return trainer.status

    def sings(self, uuid: str) -> bool:
        """Whether a step works on this device."""
        return self.step([uuid]) == 0
