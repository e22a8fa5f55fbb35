"""The loop of PyTorch's "Training a classifier" notebook against ours: same network, recipe and images, in turns.

    python bench/training_notebook.py [--steps 2000] [--rounds 5]

Images: the archive or folder of class folders named by STOKER_DEMO_DATA, else drawn noise.
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
from PIL import Image
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import transforms

from stoker.training import batches, datasets, models, optimizers
from stoker.training.config import DatasetSource, OptimizerConfig

CPU = torch.device("cpu")
BATCH = 4


class Pictures(TorchDataset[tuple[Tensor, int]]):
    """What torchvision's CIFAR10 does: one image, through PIL and the notebook's transforms."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images.permute(0, 2, 3, 1).contiguous().numpy(), labels.tolist()
        self.transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def notebook(images: Tensor, labels: Tensor, steps: int) -> float:
    """Seconds for so many steps of the notebook's loop, the start of its two loader processes left out."""
    loader = DataLoader(Pictures(images, labels), batch_size=BATCH, shuffle=True, num_workers=2)
    net = models.TutorialCnn(10)
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
    running_loss, started = 0.0, 0.0
    for i, data in enumerate(loader):
        if i == 1:
            started = time.perf_counter()
        inputs, expected = data
        optimizer.zero_grad()
        outputs = net(inputs)
        loss = criterion(outputs, expected)
        loss.backward()
        optimizer.step()
        running_loss += loss.item()
        if i == steps:
            break
    return time.perf_counter() - started


def ours(images: Tensor, labels: Tensor, steps: int) -> float:
    """Seconds for so many steps as the trainer makes them, with one thread."""
    net = models.create("tutorial-cnn", 10)
    optimizer = optimizers.create(OptimizerConfig(), net.parameters(), CPU)
    form = models.input_form("tutorial-cnn", 32, 32, CPU)
    places = torch.arange(len(labels))
    data = batches.Batches(images, labels, places, batch_size=BATCH, form=form, augmentations=(), seed=0, device=CPU)
    running_loss, started = 0.0, 0.0
    for i, (inputs, expected) in enumerate(data.epoch(0, 0)):
        if i == 1:
            started = time.perf_counter()
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(inputs), expected)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        running_loss += loss.item()
        if i == steps:
            break
    return time.perf_counter() - started


def images_to_use() -> tuple[Tensor, Tensor, str]:
    """Return 50,000 training images (N, 3, 32, 32), labels, and where they are from."""
    data = os.environ.get("STOKER_DEMO_DATA")
    if not data:
        noise = torch.randint(0, 256, (50_000, 3, 32, 32), dtype=torch.uint8)
        return noise, torch.randint(0, 10, (50_000,)), "noise"
    cache = os.environ.get("STOKER_CACHE") or tempfile.mkdtemp()
    path = datasets.prepare(DatasetSource("demo", cache, source=data), threads=2, watch=lambda *_: None)
    found = datasets.load(path)
    return found.train_images, found.train_labels, Path(data).name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    images, labels, source = images_to_use()
    threads = torch.get_num_threads()
    micros: dict[str, list[float]] = {"notebook": [], "stoker": []}
    for _ in range(asked.rounds):  # in turns, so that a noisy neighbour meets both
        torch.set_num_threads(threads)
        micros["notebook"].append(notebook(images, labels, asked.steps) / asked.steps * 1e6)
        torch.set_num_threads(1)
        micros["stoker"].append(ours(images, labels, asked.steps) / asked.steps * 1e6)
    middle = {name: statistics.median(values) for name, values in micros.items()}
    for name, value in middle.items():
        low, high = min(micros[name]), max(micros[name])
        spread = f"median of {asked.rounds}, {low:.0f} to {high:.0f}"
        print(f"{name:9} {value:6.0f} µs a step ({spread}); 25,000 steps in {value / 40:.1f} s")
    ratio = middle["notebook"] / middle["stoker"]
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    print(f"{ratio:.2f}× faster; {source}, torch {torch.__version__}, {machine}")
    figures = {"ratio": round(ratio, 3), "steps": asked.steps, "us_per_step": middle}
    print(json.dumps({"bench": "training_notebook", **figures}))


if __name__ == "__main__":
    main()
