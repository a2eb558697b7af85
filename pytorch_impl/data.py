"""From a problem to tensors, windows, and back to NumPy."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .problem import Problem

# x: (examples, features), y: (examples, outputs)
Batch = tuple[Tensor, Tensor]
# and weights: (examples, 1)
Weighted = tuple[Tensor, Tensor, Tensor]
# W: (features, outputs), b: (outputs,)
Parameters = tuple[Tensor, Tensor]


def load(problem: Problem) -> tuple[Parameters, list[Batch]]:
    """Return the parameters and one epoch as tensors."""
    W = torch.tensor(problem.W, requires_grad=True)
    b = torch.tensor(problem.b, requires_grad=True)
    pairs = problem.micro_batches
    epoch = [
        (torch.tensor(x), torch.tensor(y)) for x, y in pairs
    ]
    return (W, b), epoch


def require_plain(problem: Problem) -> None:
    """Refuse what the plain loop leaves to recipe.py."""
    if not problem.uses_only():
        raise NotImplementedError("recipe.py trains this")


def windows(
    micro_batches: Sequence[Any], accumulation_steps: int
) -> Iterator[Sequence[Any]]:
    """Cut an epoch into windows; the last may be partial."""
    count = len(micro_batches)
    for start in range(0, count, accumulation_steps):
        yield micro_batches[
            start : start + accumulation_steps
        ]


def load_weighted(
    problem: Problem,
) -> tuple[Parameters, list[Weighted]]:
    """Load parameters, and an epoch with its weights."""
    parameters, epoch = load(problem)
    weights = problem.example_weights
    if weights is None:
        weights = [np.ones(len(x)) for x, _ in epoch]
    columns = [
        w[:, None].astype(problem.dtype) for w in weights
    ]
    return parameters, [
        (x, y, torch.tensor(w))
        for (x, y), w in zip(epoch, columns)
    ]


def windows_of_run(
    epoch: list[Weighted], problem: Problem
) -> Iterator[Sequence[Weighted]]:
    """Cut a run; a policy settles an epoch's partial window.

    "apply" it, "drop" it, or "carry" it: one long epoch.
    """
    steps, policy = (
        problem.accumulation_steps,
        problem.partial_windows,
    )
    epochs = [epoch] * problem.epochs
    if policy == "carry":
        epochs = [epoch * problem.epochs]
    for micro_batches in epochs:
        for window in windows(micro_batches, steps):
            if policy == "apply" or len(window) == steps:
                yield window


def snapshot(parameters: Parameters) -> list[np.ndarray]:
    """Copy to NumPy, since .numpy() shares the memory."""
    return [p.numpy(force=True).copy() for p in parameters]
