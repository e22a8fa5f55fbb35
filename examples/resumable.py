"""A training that can be interrupted at any step and ends as if it had never been.

    stoker dataset add pictures FOLDER        # train/CLASS/*.png, test/CLASS/*.png
    stoker run --dataset pictures -- python resumable.py --epochs 5

By hand it reads data/pictures: python resumable.py --epochs 5
"""

import argparse

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

import stoker

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=2)
parser.add_argument("--lr", type=float, default=0.05)
parser.add_argument("--batch-size", type=int, default=16)
parser.add_argument("--workers", type=int, default=0)
asked = parser.parse_args()

torch.manual_seed(0)
torch.set_num_threads(1)
run = stoker.current_run()
root = run.data("pictures")
scaled = [transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))]
train = datasets.ImageFolder(root / "train", transforms.Compose([transforms.RandomHorizontalFlip(), *scaled]))
test = datasets.ImageFolder(root / "test", transforms.Compose(scaled))
loader = DataLoader(train, asked.batch_size, shuffle=True, num_workers=asked.workers)

net = nn.Sequential(
    *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(2)),
    *(nn.Flatten(), nn.Dropout(0.1), nn.Linear(128, len(train.classes))),
)
optimizer = torch.optim.SGD(net.parameters(), lr=asked.lr, momentum=0.9)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, asked.epochs * len(loader))
kept = run.resume(model=net, optimizer=optimizer, schedule=schedule, loss_sum=0.0)
print(f"attempt {run.attempt} begins at step {run.step}", flush=True)

for epoch in run.epochs(asked.epochs):
    net.train()
    for images, labels in run.steps(loader):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
        schedule.step()
        kept.loss_sum += loss.item()
        run.log(loss=loss)
    print(f"epoch {epoch + 1}: loss {kept.loss_sum / len(loader):.4f}", flush=True)
    kept.loss_sum = 0.0

net.eval()
labels_seen: list[Tensor] = []
scores: list[Tensor] = []
with torch.no_grad():
    for images, labels in DataLoader(test, 100):
        labels_seen.append(labels)
        scores.append(net(images).softmax(1))
found = torch.cat(scores)
run.predictions(labels=labels_seen, predicted=found, classes=test.classes, probabilities=found)
right = int((found.argmax(1) == torch.cat(labels_seen)).sum())
run.result(right=right, of=len(test))
torch.save(net.state_dict(), run.output / "weights.pt")
print(f"{right} of {len(test)} test images are recognised")
