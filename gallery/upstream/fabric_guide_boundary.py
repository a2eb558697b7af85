"""Lightning 2.6.6, Fabric's guide "Efficient Gradient Accumulation": its loop is off by one.

`is_accumulating = iteration % 8 != 0` with `enumerate`, which starts at 0, is False for the first
batch: the first update is taken after one batch, and all later windows are shifted by one. The loss
is not divided by 8 either, so that these windows take 8 times the mean gradient. What was meant is
`(iteration + 1) % 8 != 0` and `fabric.backward(loss / 8)`.
"""

import torch
from lightning.fabric import Fabric

STEPS, BATCHES = 8, 24


def accumulated(boundary):
    """The batches of each update; batch i has the gradient 1 for parameter i, and 0 for others."""
    fabric = Fabric(accelerator="cpu", devices=1)
    model = torch.nn.Linear(BATCHES, 1, bias=False)
    model, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=1.0))
    for iteration, batch in enumerate(torch.eye(BATCHES)):
        is_accumulating = boundary(iteration)
        with fabric.no_backward_sync(model, enabled=is_accumulating):
            fabric.backward(model(batch).sum())
        if not is_accumulating:
            yield model.weight.grad.count_nonzero().item()
            optimizer.step()
            optimizer.zero_grad()


if __name__ == "__main__":
    print("expected", list(accumulated(lambda iteration: (iteration + 1) % STEPS != 0)))
    print("actual  ", list(accumulated(lambda iteration: iteration % STEPS != 0)))
