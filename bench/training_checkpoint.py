"""How long the training loop stands still for a checkpoint: ours against ``torch.save`` in the loop.

python bench/training_checkpoint.py [--repeats 15]
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch

from stoker.training import checkpoint, models, optimizers
from stoker.training.config import OptimizerConfig

CPU = torch.device("cpu")


def stepped(name: str) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """A network whose optimizer has its momentum."""
    model = models.create(name, 10)
    optimizer = optimizers.create(OptimizerConfig(), model.parameters(), CPU)
    model(torch.randn(4, 3, 32, 32)).sum().backward()
    optimizer.step()
    return model, optimizer


def ours(name: str, repeats: int, folder: Path) -> tuple[list[float], list[float], int]:
    """Milliseconds that the loop waits, milliseconds until the file is safe, and its bytes."""
    model, optimizer = stepped(name)
    written: list[checkpoint.Written] = []
    writer = checkpoint.Writer(folder, CPU, written.append)
    writer.warm(checkpoint.tensors_of(model, optimizer))
    stalls, whole = [], []
    for step in range(repeats + 1):
        writer.wait()
        started = time.perf_counter()
        writer.save(step, checkpoint.tensors_of(model, optimizer), {"state": {}}, {})
        stalls.append((time.perf_counter() - started) * 1e3)
        writer.wait()
        whole.append((time.perf_counter() - started) * 1e3)
        (folder / written[-1].path).unlink()
    return stalls[1:], whole[1:], written[-1].bytes


def plain_copy(nbytes: int, repeats: int) -> list[float]:
    """Milliseconds of one plain copy of so many bytes: what this machine's memory allows."""
    source, target = (torch.ones(nbytes, dtype=torch.uint8) for _ in range(2))
    took = []
    for _ in range(repeats):
        started = time.perf_counter()
        target.copy_(source)
        took.append((time.perf_counter() - started) * 1e3)
    return took


def torch_save(name: str, repeats: int, folder: Path) -> list[float]:
    """Milliseconds of ``torch.save`` to the same disk, without a sync, a hash or an atomic rename."""
    model, optimizer = stepped(name)
    stalls = []
    for _ in range(repeats):
        started = time.perf_counter()
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, folder / "plain.pt")
        stalls.append((time.perf_counter() - started) * 1e3)
    return stalls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    report = {}
    for name in ("tutorial-cnn", "resnet18"):
        with tempfile.TemporaryDirectory() as folder:
            stalls, whole, size = ours(name, repeats, Path(folder))
            plain = torch_save(name, repeats, Path(folder))
            copied = plain_copy(size, repeats)
        middle = statistics.median(stalls)
        print(
            f"{name:13} {size / 1e6:5.1f} MB: the loop waits {middle:.3f} ms (n = {repeats}, {min(stalls):.3f} to "
            f"{max(stalls):.3f}); safe on disk after {statistics.median(whole):.1f} ms; "
            f"torch.save in the loop {statistics.median(plain):.1f} ms; a plain copy {statistics.median(copied):.3f} ms"
        )
        report[name] = {
            "stall_ms": middle,
            "torch_save_ms": statistics.median(plain),
            "copy_ms": statistics.median(copied),
            "bytes": size,
        }
    print(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    print(json.dumps({"bench": "training_checkpoint", **report}))


if __name__ == "__main__":
    main()
