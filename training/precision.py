"""With how many bits a network computes."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from stoker.training.config import TrainConfig

Context = Callable[[], contextlib.AbstractContextManager[Any]]


@dataclass(frozen=True, slots=True)
class Precision:
    """What a training uses on its device."""

    name: str  # float32 | bf16 | fp16
    context: Context  # entered around each forward pass
    scaler: torch.amp.GradScaler | None  # fp16 only: gradients are scaled so that small ones survive
    note: str = ""  # where something else was asked for


def resolve(config: TrainConfig, device: torch.device) -> Precision:
    """Return the precision for a config on a device.

    ``auto`` is bf16 for all but the tutorial's network where the device is fast at it, else float32. fp16 needs a GPU.
    """
    name, note = config.precision, ""
    if name == "auto":
        name = "bf16" if config.model != "tutorial-cnn" and _fast_bf16(device) else "float32"
    elif name == "fp16" and device.type == "cpu":
        name, note = "float32", "fp16 needs a GPU: trained in float32 on the CPU"
    if name == "float32":
        return Precision(name, contextlib.nullcontext, None, note)
    dtype = torch.bfloat16 if name == "bf16" else torch.float16

    def context() -> torch.autocast:
        return torch.autocast(device.type, dtype=dtype)

    return Precision(name, context, torch.amp.GradScaler(device.type) if name == "fp16" else None, note)


def _fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
