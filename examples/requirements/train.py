"""A script that needs a package which the worker does not have: see requirements.txt.

Once, by hand: ``pip wheel ./barchart --no-deps -w wheels``. Then, in this folder:
``stoker run --requirements requirements.txt -- python train.py``.
"""

import barchart
import torch

torch.manual_seed(0)
weights = torch.zeros(3, requires_grad=True)
target = torch.tensor([3.0, 1.0, 2.0])
optimizer = torch.optim.SGD([weights], lr=0.2)
for _ in range(30):
    optimizer.zero_grad()
    (weights - target).square().sum().backward()
    optimizer.step()
print(barchart.draw({"a": weights[0].item(), "b": weights[1].item(), "c": weights[2].item()}))
print(f"torch {torch.__version__} is the worker's own, barchart {barchart.VERSION} the job's")
