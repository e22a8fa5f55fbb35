"""What of a user's own code goes into its checkpoints, and back out: any objects by name, and all random generators.

The copy, the thread that writes, the file, its check and the random states are those of the built-in recipes.
"""

import random
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stoker.training import resume, states
from stoker.training.checkpoint import Writer, Written, random_states, set_random_states
from stoker.training.config import CheckpointSource
from stoker.training.resume import Loaded, mismatch
from stoker.training.weights import PREFIX as MODEL

BEGAN = "began."  # of the names of the random states at the beginning of the epoch
_REASON_CHARACTERS = 1000
Document = dict[str, Any]
Generators = list[torch.Generator]


class Keeper:
    """The objects of one run, by name."""

    def __init__(self, folder: Path, announce: Callable[[Written], None]) -> None:
        """Write checkpoints into ``folder``; ``announce`` is called from another thread when a file is complete."""
        self.values = SimpleNamespace()  # what ``resume`` was given and returns
        self.loaded: Loaded | None = None
        self.saved_step = -1  # of the last checkpoint, loaded or written
        self._things: dict[str, Any] = {}  # those with a state of their own
        self._folder, self._announce = folder, announce
        self._writer: Writer | None = None
        self._began: tuple[dict[str, Tensor], Document] | None = None  # random states, generators
        self._generators: Generators = []  # of the loader of the epoch

    def load(self, source: CheckpointSource) -> Document:
        """Map a checkpoint; returns where it stands. Raises TrainingFailed (``checkpoint_mismatch``)."""
        loaded = resume.load(source)
        if not isinstance(loaded.document.get("things"), dict):
            raise mismatch("the checkpoint is of a built-in recipe, not of a script or notebook")
        self.loaded, self.saved_step = loaded, loaded.document["step"]
        position: Document = loaded.document["position"]
        return position

    def add(self, given: Mapping[str, Any]) -> None:
        """Keep objects from now on, and put each where the checkpoint left it.

        Raises TrainingFailed (``checkpoint_mismatch``).
        """
        for name, thing in given.items():
            setattr(self.values, name, thing)
            if _has_state(thing):
                self._things[name] = thing
        if self.loaded is not None:
            self._restore(self.loaded, given)
            self.restore_random(self.loaded)

    def holds(self, thing: object) -> bool:
        """Whether an object was given to ``add``."""
        return any(thing is one for one in self._things.values())

    def check_complete(self) -> None:
        """Raise TrainingFailed (``checkpoint_mismatch``) while a part of the checkpoint was given to nothing."""
        missing = set(self.loaded.document["things"]) - set(self._things) if self.loaded else None
        if missing:
            names = ", ".join(f"{name}=…" for name in sorted(missing))
            raise mismatch(f"the checkpoint holds more than run.resume was given: it lacks {names}")

    def begin_epoch(self, generators: Generators) -> None:
        """Keep the random states of this moment with each checkpoint until the next epoch begins."""
        tensors, document = random_states(_device())
        self._generators = generators
        self._began = {f"{BEGAN}{name}": value for name, value in tensors.items()} | self._orders(BEGAN), document

    def begin_epoch_again(self, generators: Generators) -> None:
        """Put all random generators where they were when the epoch of the checkpoint began."""
        loaded, self._generators = self._resumed(), generators
        began = {name.removeprefix(BEGAN): value for name, value in loaded.tensors.items() if name.startswith(BEGAN)}
        set_random_states(began, loaded.document["began"], _device())
        self._set_orders(began)
        self._began = (
            {f"{BEGAN}{name}": value.clone() for name, value in began.items()},
            loaded.document["began"],
        )

    def restore_orders(self, generators: Generators) -> None:
        """Put the generators of a loader where the checkpoint left them."""
        self._generators = generators
        self._set_orders(self._resumed().tensors)

    def restore_random(self, loaded: Loaded | None = None) -> None:
        """Put all random generators where the checkpoint left them."""
        loaded = loaded or self._resumed()
        set_random_states(loaded.tensors, loaded.document["random"], _device())
        self._set_orders(loaded.tensors)

    @property
    def busy(self) -> bool:
        """Whether the checkpoint before is still being written."""
        return self._writer is not None and self._writer.busy

    def save(self, step: int, position: Document, message: Document) -> None:
        """Copy all states now, and write them beside the training.

        Raises InvalidInput for a state that is not data, OSError when the one before could not be written.
        """
        if self._writer is None:
            self._writer = Writer(self._folder, _device(), self._announce)
        tensors: dict[str, Tensor] = {}
        document: Document = {"position": position, "things": self._pack_things(tensors)}
        plain = {name: value for name, value in vars(self.values).items() if name not in self._things}
        document["values"] = {name: states.pack(value, f"values.{name}", tensors) for name, value in plain.items()}
        if self._began is not None:
            tensors |= self._began[0] | self._orders()
            document["began"] = self._began[1]
        self._writer.save(step, tensors, document, message)
        self.saved_step = step
        self.loaded = None  # from here on the objects are ahead of it

    def wait(self) -> None:
        """Wait until the last checkpoint is written. Raises OSError when it could not be."""
        if self._writer is not None:
            self._writer.wait()

    def _resumed(self) -> Loaded:
        assert self.loaded is not None  # callers have looked  # noqa: S101
        return self.loaded

    def _pack_things(self, tensors: dict[str, Tensor]) -> Document:
        modules = [name for name, thing in self._things.items() if isinstance(thing, nn.Module)]
        main = "model" if "model" in modules else modules[0] if len(modules) == 1 else None
        packed = {}
        for name, thing in self._things.items():
            prefix = name if name not in modules else MODEL[:-1] if name == main else f"{MODEL}{name}"
            packed[name] = states.pack(_state_of(thing), prefix, tensors)
        return packed

    def _restore(self, loaded: Loaded, given: Mapping[str, Any]) -> None:
        for name, thing in given.items():
            if name in self._things and name not in loaded.document["things"]:
                raise mismatch(f"the checkpoint holds no {name}: it was written before run.resume was given one")
            try:
                if name in self._things:
                    _set_state(thing, states.unpack(loaded.document["things"][name], loaded.tensors))
            except (KeyError, IndexError, TypeError, ValueError, RuntimeError, AttributeError) as error:
                raise mismatch(f"{name} does not take its state: {str(error)[:_REASON_CHARACTERS]}") from error
        for name, document in loaded.document["values"].items():
            if name not in self._things:
                value = states.unpack(document, loaded.tensors)
                setattr(self.values, name, _fill(getattr(self.values, name, None), value))

    def _orders(self, prefix: str = "") -> dict[str, Tensor]:
        return {f"{prefix}order.{index}": one.get_state() for index, one in enumerate(self._generators)}

    def _set_orders(self, tensors: Mapping[str, Tensor]) -> None:
        for index, generator in enumerate(self._generators):
            if (state := tensors.get(f"order.{index}")) is not None:
                generator.set_state(state.clone())


def written_message(written: Written) -> Document:
    """The fields of the message that announces a checkpoint."""
    fields = asdict(written)
    told: Document = fields.pop("message")
    return fields | told


def _device() -> torch.device:
    """Where random numbers are drawn besides the CPU: asks CUDA nothing that the code has not asked."""
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.device("cuda", torch.cuda.current_device()) if in_use else torch.device("cpu")


def _has_state(thing: object) -> bool:
    own = isinstance(thing, torch.Generator | np.random.Generator | random.Random)
    return own or (hasattr(thing, "state_dict") and hasattr(thing, "load_state_dict"))


def _state_of(thing: Any) -> Any:
    if isinstance(thing, torch.Generator):
        return thing.get_state()
    if isinstance(thing, np.random.Generator):
        return thing.bit_generator.state
    return thing.getstate() if isinstance(thing, random.Random) else thing.state_dict()


def _set_state(thing: Any, state: Any) -> None:
    if isinstance(thing, torch.Generator):
        thing.set_state(state)
    elif isinstance(thing, np.random.Generator):
        thing.bit_generator.state = state
    elif isinstance(thing, random.Random):
        thing.setstate(state)
    elif isinstance(thing, torch.optim.Optimizer):
        thing.load_state_dict(state)
        resume.lay_out(thing, state)
    else:
        if isinstance(state, OrderedDict):  # the versions of its parts, which are the code's and not the checkpoint's
            state._metadata = getattr(thing.state_dict(), "_metadata", {})  # type: ignore[attr-defined]
        thing.load_state_dict(state)


def _fill(held: Any, value: Any) -> Any:
    """Put a value into the container that the user's code holds, where there is one of the same kind."""
    if isinstance(held, Tensor) and isinstance(value, Tensor) and held.shape == value.shape:
        held.detach().copy_(value)
    elif isinstance(held, np.ndarray) and isinstance(value, np.ndarray) and held.shape == value.shape:
        held[...] = value
    elif isinstance(held, list) and isinstance(value, list):
        held[:] = value
    elif isinstance(held, dict | set) and isinstance(value, type(held)):
        held.clear()
        held.update(value)
    else:
        return value
    return held
