"""A training step of nothing, in a forked child, confined as trainers are: whether they can work here."""

import itertools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stoker.jobs.fleet import OfferedDevice
from stoker.log import Events
from stoker.workers import processes
from stoker.workers.bounds import Bounds
from stoker.workers.devices import Inventory, cuda_environment, limit_memory
from stoker.workers.orders import Order
from stoker.workers.trainers import ForkServer

events = Events(__name__)
SECONDS = 60.0
AT_ONCE = 4  # each holds some hundred MB of the host, and takes seconds to load CUDA


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
        return self._run(uuids, {}, cuda_environment(uuids), check)

    def keeps_to(self, share: float, device: OfferedDevice) -> int | None:
        """Make one on a device, then let the child take more than its share of the memory; 0 only if it got less.

        Raises Unavailable, OSError.
        """
        environment = limit_memory(cuda_environment([device.uuid]), share, device.memory_bytes)
        amounts = {
            "granted_bytes": int(share * device.memory_bytes / 2),
            "refused_bytes": int(share * device.memory_bytes),
        }
        return self._run([device.uuid], {"share": amounts}, environment, lambda: None)

    def _run(
        self, uuids: list[str], more: Mapping[str, Any], environment: Mapping[str, str], check: Callable[[], None]
    ) -> int | None:
        self.scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        order = Order(
            id=f"canary {next(self._numbers)}",
            task={"kind": "canary", "device": self.inventory.torch_device(uuids), **more},
            environment={**self.environment, **environment},
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

    def trial(self, uuids: Sequence[str]) -> dict[str, str]:
        """Make a step on each of these devices, or on the CPU if there are none; where that failed twice, and how.

        Raises as ``step``.
        """
        places = [[uuid] for uuid in uuids] or [[]]
        with ThreadPoolExecutor(min(AT_ONCE, len(places)), thread_name_prefix="canary") as pool:
            statuses = list(pool.map(self._twice, places))
        failed = {"".join(place): status for place, status in zip(places, statuses, strict=True) if status != 0}
        return {uuid: f"a training step failed on it at the start (status {status})" for uuid, status in failed.items()}

    def _twice(self, place: list[str]) -> int | None:
        for _ in range(2):
            if (status := self.step(place)) == 0:
                return 0
            events.warning("canary_failed", device=place, status=status)
        return status

    def sings(self, uuid: str) -> bool:
        """Whether a step works on this device."""
        return self.step([uuid]) == 0
