"""How weights move: the optimizer, and the learning rate of each step."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from stoker.training.config import OptimizerConfig, ScheduleConfig

ONE_CYCLE_PEAK = 0.25  # share of the steps at which the learning rate is highest


def create(config: OptimizerConfig, parameters: Iterable[nn.Parameter], device: torch.device) -> torch.optim.Optimizer:
    """Return the optimizer; one call updates all weights where the device has such a kernel."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    common: dict[str, Any] = {
        "lr": config.lr,
        "weight_decay": config.weight_decay,
        "fused": device.type in ("cpu", "cuda"),
    }
    if config.name == "adam":
        return torch.optim.Adam(trained, **common)
    if config.name == "adamw":
        return torch.optim.AdamW(trained, **common)
    return torch.optim.SGD(trained, momentum=config.momentum, nesterov=config.nesterov, **common)


def learning_rate(optimizer: OptimizerConfig, schedule: ScheduleConfig, step: int, steps: int) -> float:
    """Return the learning rate of step ``step`` of ``steps``, counted from 0: a function of nothing else.

    cosine: from ``lr`` down to 0 along half a cosine. one-cycle: up from a tenth in a straight line over the first
    quarter, down to 0 in a straight line after it.
    """
    if schedule.name == "cosine":
        return optimizer.lr * (1 + math.cos(math.pi * step / steps)) / 2
    if schedule.name == "one-cycle":
        peak = ONE_CYCLE_PEAK * steps
        rising = 0.1 + 0.9 * step / peak
        return optimizer.lr * min(rising, (steps - step) / (steps - peak))
    return optimizer.lr
