"""A package of several files, with data beside it, that tells Stoker how it gets on.

By hand: ``python -m spirals``. As a job: ``stoker run -- python -m spirals``; both in the folder above this one.
"""

import csv
from pathlib import Path

import torch
from torch import nn

import stoker
from spirals import network

run = stoker.current_run()
torch.manual_seed(0)
with Path("data/spirals.csv").open() as file:  # from the folder in which the command was given
    rows = [[float(value) for value in row] for row in csv.reader(file)]
table = torch.tensor(rows)
points, labels = table[:, :2], table[:, 2:]
model = network.make()
optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
run.resume(model=model, optimizer=optimizer)
for _ in run.epochs(5):
    for _ in range(40):
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(model(points), labels)
        loss.backward()
        optimizer.step()
        run.log(loss=loss)
predicted = (model(points) > 0).long().flatten()
run.predictions(labels=labels.long().flatten(), predicted=predicted, classes=["first", "second"])
run.result(points=len(points))
print(f"{(predicted == labels.flatten()).float().mean().item():.1%} of {len(points)} points are told apart")
