"""Small checkpoints for tests: a network after one step, and the file of it."""

from pathlib import Path

import torch

from stoker.training import checkpoint, models, optimizers
from stoker.training.checkpoint import Written
from stoker.training.config import CheckpointSource, OptimizerConfig

CPU = torch.device("cpu")


def stepped() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """A network and its optimizer after one step."""
    torch.default_generator.manual_seed(7)
    model = models.create("tutorial-cnn", 10)
    optimizer = optimizers.create(OptimizerConfig(lr=0.1), model.parameters(), CPU)
    model(torch.randn(4, 3, 32, 32)).sum().backward()
    optimizer.step()
    return model, optimizer


def written(folder: Path, step: int = 1) -> CheckpointSource:
    """A checkpoint file of that network."""
    announced: list[Written] = []
    writer = checkpoint.Writer(folder, CPU, announced.append)
    writer.save(step, checkpoint.tensors_of(*stepped()), {"run": {}, "state": {}}, {})
    writer.wait()
    return CheckpointSource(str(folder / announced[0].path), announced[0].sha256, step)
