"""The network."""

from torch import nn


def make(width: int = 32) -> nn.Module:
    """Two coordinates in, one score out: above 0 for the second spiral."""
    return nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))
