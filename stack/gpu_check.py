"""``make gpu-check``: everything that only a GPU can show, tried on this machine's, in one command.

Prints a line for each check, with what to do about one that failed, and at the end ``N passed, M failed``. Exit code 0
only if all passed; 2 where there is no GPU to check. What it tries stands in docs/gpu.md.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from stoker.client.client import Client
from stoker.errors import InvalidInput, StackError, StokerError
from stoker.jobs.fleet import OfferedDevice
from stoker.settings import Settings, load
from stoker.stack.demo import demo_settings
from stoker.stack.stack import Stack
from stoker.workers import devices, watch
from stoker.workers.bounds import Bounds
from stoker.workers.canary import Canary
from stoker.workers.devices import Inventory, cuda_environment
from stoker.workers.trainers import COMMAND, ForkServer, allowed_environment

SHARE = 0.25  # of a device's memory, for the check of the limit
TORCH_SECONDS = 120.0
TRAINING_SECONDS = 600.0
SMALL = {"dataset": "digits", "model": "fast", "epochs": 2, "batch_size": 64}
LOOK = """
import json, torch
found = {"torch": torch.__version__, "cuda": torch.version.cuda, "available": torch.cuda.is_available()}
found["bf16"] = found["available"] and torch.cuda.is_bf16_supported(including_emulation=False)
print(json.dumps(found))
"""


@dataclass
class GpuCheck:
    """One run of all checks; ``say`` receives a line for each."""

    settings: Settings
    environ: Mapping[str, str]
    inventory: Inventory
    found: tuple[OfferedDevice, ...]
    say: Callable[[str], None]
    passed: int = 0
    failed: int = 0

    def run(self) -> None:
        """Run all; a later one that needs an earlier one is left out where that failed, and says so."""
        self._check("driver", self._driver)
        torch = self._look()
        works = self._check("torch", lambda: described(torch))
        for device in self.found:
            self._check(f"device {device.uuid}", lambda device=device: self._free(device))  # type: ignore[misc]
        self._steps()
        if works:
            precision = "bf16" if torch["bf16"] else "float32"
            self._check(f"training in {precision}", lambda: self._train(precision))
        else:
            self.say("left out: training, because torch cannot use a GPU")
        self.say(f"{self.passed} passed, {self.failed} failed")

    def _check(self, name: str, work: Callable[[], str]) -> bool:
        try:
            detail = work()
        except (StokerError, OSError, httpx.HTTPError, TimeoutError) as error:
            self.failed += 1
            self.say(f"FAILED: {name}: {error}")
            return False
        self.passed += 1
        self.say(f"passed: {name}: {detail}")
        return True

    def _driver(self) -> str:
        return f"version {self.inventory.driver()}, {len(self.found)} devices"

    def _look(self) -> dict[str, Any]:
        """What torch says of CUDA, in a process of its own."""
        environ = allowed_environment(self.environ) | cuda_environment([self.found[0].uuid])
        asked = subprocess.run(
            [sys.executable, "-c", LOOK],
            env=environ,
            capture_output=True,
            text=True,
            timeout=TORCH_SECONDS,
            check=False,
        )
        try:
            return dict(json.loads(asked.stdout.splitlines()[-1]))
        except (ValueError, IndexError):
            return {"torch": None, "said": asked.stderr.strip()[-300:]}

    def _free(self, device: OfferedDevice) -> str:
        """Whether a device answers, and nobody else is on it."""
        if objection := watch.at_start(self.inventory, [device.uuid]).get(device.uuid):
            raise StackError(f"{objection}; `nvidia-smi` shows who uses it and what is wrong")
        kind = "MIG instance of " if device.uuid.startswith("MIG-") else ""
        return (
            f"{kind}{device.model}, {device.memory_bytes / 1e9:.1f} GB, position {device.position}, nobody else on it"
        )

    def _steps(self) -> None:
        """Let forked, confined children train on each device, and try to take more than their share of it."""
        server = ForkServer(self.environ, COMMAND)
        server.start()
        try:
            with tempfile.TemporaryDirectory(prefix="stoker-gpu-") as scratch:
                for device in self.found:
                    self._check(f"step {device.uuid}", lambda device=device: self._step(server, scratch, device))  # type: ignore[misc]
                    self._check(f"share {device.uuid}", lambda device=device: self._share(server, scratch, device))  # type: ignore[misc]
        finally:
            server.close()

    def _canary(self, server: ForkServer, scratch: str) -> Canary:
        server.wait_ready()
        visible = allowed_environment(self.environ)
        return Canary(server, self.inventory, visible, Path(scratch), Bounds.of(self.settings))

    def _step(self, server: ForkServer, scratch: str, device: OfferedDevice) -> str:
        if (status := self._canary(server, scratch).step([device.uuid])) != 0:
            raise StackError(
                f"the child ended with {status}; its words stand above. If it was refused a file, compare the device "
                "files of `python -m stoker.workers.nvml` with /dev/nvidia*; STOKER_CONFINEMENT=best-effort tells "
                "whether it is the confinement"
            )
        return "a forked, confined child made a training step"

    def _share(self, server: ForkServer, scratch: str, device: OfferedDevice) -> str:
        if (status := self._canary(server, scratch).keeps_to(SHARE, device)) != 0:
            raise StackError(
                f"a child that has {SHARE:g} of its memory could take more (status {status}); do not allow fractions "
                "of this pool's devices"
            )
        return f"torch was refused more than {SHARE:g} of its memory"

    def _train(self, precision: str) -> str:
        """A short training through API, queue, worker and trainer, on a GPU."""
        spec = {
            "kind": "train",
            "name": "gpu-check",
            "train": SMALL | {"precision": precision},
            "resources": {"device": "gpu", "gpus": 1, "cpus": 1, "memory": "4GB"},
        }
        with tempfile.TemporaryDirectory(prefix="stoker-gpu-") as home:
            Path(home).chmod(0o711)  # as root, the database runs as another user
            own = replace(demo_settings(self.settings), home=Path(home))
            with Stack.start(own, lambda _: None) as stack, Client(stack.url, stack.token) as client:
                result = client.submit(spec).result(timeout=TRAINING_SECONDS)
        if result.device is None or all(device.model not in result.device for device in self.found):
            raise StackError(f"it was trained on {result.device!r}, which is no device of this machine")
        return f"accuracy {100 * (result.accuracy or 0):.1f} % on {result.device}"


def described(torch: Mapping[str, Any]) -> str:
    """What torch can do here.

    Raises StackError: it cannot use a GPU.
    """
    if torch["torch"] is None:
        raise StackError(f"it cannot be loaded: {torch['said']}")
    if not torch["available"]:
        built = f"for CUDA {torch['cuda']}" if torch["cuda"] else "for the CPU alone"
        raise StackError(
            f"torch {torch['torch']} is built {built} and finds no GPU; install a build for this driver "
            "(https://pytorch.org/get-started/locally), or a newer driver"
        )
    return f"torch {torch['torch']}, CUDA {torch['cuda']}, bf16 {'yes' if torch['bf16'] else 'no'}"


def main() -> int:
    """Check; the exit code."""

    def say(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    try:
        settings = load(os.environ)
        inventory = devices.inventory(settings.worker_devices)
        found = inventory.devices()
    except InvalidInput as error:
        say(f"Error: {error}")
        return 2
    if not found:
        why = "NVIDIA's driver does not answer" if inventory.driver() is None else "the driver lists no device"
        say(f"no GPU here: {why} (`nvidia-smi` shows the same); nothing was checked")
        return 2
    check = GpuCheck(settings, os.environ, inventory, found, say)
    check.run()
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
