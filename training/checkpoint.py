"""Everything that decides how a training goes on, in one file.

The loop waits for a flat copy into memory that is taken once, and for nothing else: a thread turns the copy into a
safetensors file, without a second copy, while the loop goes on. A file appears whole or not at all, and is announced
with its SHA-256 after it has been synced to the disk.
"""

import json
import queue
import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stoker.training import tensorfile
from stoker.training.weights import PREFIX as MODEL

FORMAT = 1
OPTIMIZER, RANDOM = "optimizer.", "random."
_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
TORCH_DTYPES = {name: dtype for dtype, name in _DTYPES.items()}
Document = dict[str, Any]


def tensors_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return weights, buffers and what the optimizer keeps of each weight, by name; not copies."""
    tensors = {MODEL + name: value.detach() for name, value in model.state_dict(keep_vars=True).items()}
    for index, parameter in enumerate(_parameters(optimizer)):
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{OPTIMIZER}{index}.{key}"] = value
    return tensors


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def random_states(device: torch.device) -> tuple[dict[str, Tensor], Document]:
    """Return the states of all random generators: tensors, and what JSON holds better."""
    numpy_state = np.random.get_state(legacy=False)
    tensors = {
        f"{RANDOM}torch": torch.get_rng_state(),
        f"{RANDOM}numpy": torch.from_numpy(numpy_state["state"]["key"].view(np.int32)),
    }
    if device.type == "cuda":
        tensors[f"{RANDOM}cuda"] = torch.cuda.get_rng_state(device)
    numpy_rest = (int(numpy_state["state"]["pos"]), numpy_state["has_gauss"], numpy_state["gauss"])
    return tensors, {"python": random.getstate(), "numpy": numpy_rest}


def set_random_states(tensors: Mapping[str, Tensor], document: Document, device: torch.device) -> None:
    """Put all random generators where ``random_states`` found them."""
    torch.set_rng_state(tensors[f"{RANDOM}torch"].clone())
    if device.type == "cuda" and f"{RANDOM}cuda" in tensors:
        torch.cuda.set_rng_state(tensors[f"{RANDOM}cuda"].clone(), device)
    version, values, gauss = document["python"]
    random.setstate((version, tuple(values), gauss))
    position, has_gauss, cached = document["numpy"]
    key = tensors[f"{RANDOM}numpy"].numpy().view(np.uint32).copy()
    np.random.set_state(
        {"bit_generator": "MT19937", "state": {"key": key, "pos": position}, "has_gauss": has_gauss, "gauss": cached}
    )


class Snapshot:
    """Memory for one flat copy of a fixed set of tensors."""

    def __init__(self, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        """Take memory for tensors with these names, types and shapes."""
        ordered = sorted(
            tensors.items(), key=lambda item: -item[1].element_size()
        )  # each stands at a multiple of its size
        entries, position = [], 0
        for name, tensor in ordered:
            entries.append(tensorfile.entry(name, _DTYPES[tensor.dtype], tensor.shape, position))
            position = entries[-1].end
        self.entries = entries
        self._device = device
        self._described = _describe(tensors)
        self._names = [name for name, _ in ordered]
        self._flat = torch.empty(position, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self._views = [
            self._flat[one.begin : one.end].view(tensor.dtype).view(tensor.shape)
            for one, (_, tensor) in zip(entries, ordered, strict=True)
        ]

    def fits(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether these tensors have the names, types and shapes that there is memory for."""
        return self._described == _describe(tensors)

    @torch.no_grad()
    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the tensors; the only part of a checkpoint that the loop waits for."""
        torch._foreach_copy_(self._views, [tensors[name] for name in self._names], non_blocking=True)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def content(self) -> memoryview:
        """Return the bytes of the last copy."""
        return self._flat.numpy().data

    def warm(self) -> None:
        """Touch the memory, so that the first copy does not wait for the kernel to find pages."""
        self._flat.numpy().fill(0)


def _describe(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.dtype, torch.Size]]:
    return {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}


@dataclass(frozen=True, slots=True)
class Written:
    """A checkpoint that lies on the disk."""

    path: str  # in the folder
    step: int
    bytes: int
    sha256: str
    message: Document  # what was given to ``save``


class Writer:
    """Writes checkpoints beside the loop, one at a time."""

    def __init__(self, folder: Path, device: torch.device, announce: Callable[[Written], None]) -> None:
        """Write into ``folder``; ``announce`` is called from the thread when a file is complete."""
        self._folder, self._device, self._announce = folder, device, announce
        self._snapshot: Snapshot | None = None
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._idle = threading.Event()
        self._idle.set()
        self._started = False
        self._files: Counter[int] = Counter()  # by step
        self._error: BaseException | None = None

    def warm(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the memory now, touching it beside the loop; needs the optimizer to have made a step."""
        self._snapshot = Snapshot({**tensors, **random_states(self._device)[0]}, self._device)
        self._start(self._snapshot.warm)

    @property
    def busy(self) -> bool:
        """Whether the checkpoint before is still being written."""
        return not self._idle.is_set()

    def save(self, step: int, tensors: Mapping[str, Tensor], document: Document, message: Document) -> None:
        """Copy the state now and write it beside the loop, after the one before.

        Raises what went wrong with the one before.
        """
        self.wait()
        random_tensors, random_document = random_states(self._device)
        everything = {**tensors, **random_tensors}
        snapshot = self._snapshot
        if snapshot is None or not snapshot.fits(everything):
            snapshot = self._snapshot = Snapshot(everything, self._device)
        snapshot.take(everything)
        state = {**document, "format": FORMAT, "step": step, "random": random_document}
        self._start(lambda: self._write(snapshot, step, state, message))

    def wait(self) -> None:
        """Wait until the last checkpoint is written; raises what went wrong with it."""
        self._idle.wait()
        error, self._error = self._error, None
        if error:
            raise error

    def _start(self, work: Callable[[], None]) -> None:
        """Hand work to the thread, which waits for it: to start a thread each time takes longer than the copy."""
        self.wait()
        if not self._started:
            self._started = True
            threading.Thread(target=self._run, name="checkpoint", daemon=True).start()
        self._idle.clear()
        self._work.put(work)

    def _run(self) -> None:
        while True:
            work = self._work.get()
            try:
                work()
            except BaseException as error:  # raised again where the loop waits
                self._error = error
            finally:
                self._idle.set()

    def _write(self, snapshot: Snapshot, step: int, state: Document, message: Document) -> None:
        header = tensorfile.pack_header(snapshot.entries, {"format": "pt", "stoker": json.dumps(state)})
        self._files[step] += 1
        again = f"-{self._files[step]}" if self._files[step] > 1 else ""  # the one before may not have been taken yet
        path = self._folder / f"checkpoint-{step}{again}.safetensors"
        nbytes, sha256 = tensorfile.write(path, header, [snapshot.content()])
        self._announce(Written(path.name, step, nbytes, sha256, message))
