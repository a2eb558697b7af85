"""From a problem to tensors, windows, and back to NumPy."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

# x: (examples, features), y: (examples, outputs)
Batch = tuple[Tensor, Tensor]
# W: (features, outputs), b: (outputs,)
Parameters = tuple[Tensor, Tensor]


def load(problem: Any) -> tuple[Parameters, list[Batch]]:
    """Return the parameters and one epoch as tensors."""
    W = torch.tensor(problem.W, requires_grad=True)
    b = torch.tensor(problem.b, requires_grad=True)
    pairs = problem.micro_batches
    epoch = [
        (torch.tensor(x), torch.tensor(y)) for x, y in pairs
    ]
    return (W, b), epoch


def windows(
    micro_batches: Sequence[Batch], accumulation_steps: int
) -> Iterator[Sequence[Batch]]:
    """Cut an epoch into windows; the last may be partial."""
    count = len(micro_batches)
    for start in range(0, count, accumulation_steps):
        yield micro_batches[
            start : start + accumulation_steps
        ]


def snapshot(parameters: Parameters) -> list[np.ndarray]:
    """Copy to NumPy, since .numpy() shares the memory."""
    return [p.numpy(force=True).copy() for p in parameters]
