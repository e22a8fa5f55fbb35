"""A plain script, with nothing of Stoker in it: a small network learns handwritten digits.

By hand: ``python train.py --epochs 30``. As a job: ``stoker run -- python train.py --epochs 30``, in this folder.
"""

import argparse
import os
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=30)
parser.add_argument("--lr", type=float, default=0.1)
arguments = parser.parse_args()

torch.manual_seed(0)
digits = load_digits()  # 1,797 images of 8×8 in 17 shades
images = torch.tensor(digits.data, dtype=torch.float32) / 16
labels = torch.tensor(digits.target)
is_test = torch.arange(len(labels)) % 5 == 4
train_images, train_labels = images[~is_test], labels[~is_test]

network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.SGD(network.parameters(), lr=arguments.lr, momentum=0.9)
for epoch in range(arguments.epochs):
    total = 0.0
    for batch in torch.randperm(len(train_labels)).split(64):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(train_images[batch]), train_labels[batch])
        loss.backward()
        optimizer.step()
        total += loss.item() * len(batch)
    print(f"epoch {epoch + 1}: loss {total / len(train_labels):.3f}")

with torch.no_grad():
    accuracy = (network(images[is_test]).argmax(1) == labels[is_test]).float().mean().item()
print(f"accuracy on {int(is_test.sum())} test images: {accuracy:.1%}")
torch.save(network.state_dict(), Path(os.environ.get("STOKER_OUTPUT", ".")) / "digits.pt")
