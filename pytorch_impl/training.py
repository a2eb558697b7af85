"""Gradient accumulation with torch.optim: you zero."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from .data import (
    Batch,
    Parameters,
    load,
    require_plain,
    snapshot,
    windows,
)
from .model import linear_model, squared_error
from .optimizers import make_optimizer
from .problem import Problem


def gradient_descent(
    parameters: Parameters, batch: Batch, learning_rate: float
) -> None:
    """Take one update in place, with no optimizer object."""
    (W, b), (x, y) = parameters, batch
    squared_error(linear_model(x, W, b), y, len(x)).backward()
    with torch.no_grad():
        W -= learning_rate * W.grad
        b -= learning_rate * b.grad
    # Or the next backward() would add to them.
    W.grad = b.grad = None


def train_window(
    parameters: Parameters,
    optimizer: Optimizer,
    window: Sequence[Batch],
) -> Tensor:
    """Take one update in place; return the window's loss."""
    examples = sum(len(x) for x, _ in window)
    window_loss = 0.0
    # reset: backward() adds to what .grad holds; drop it.
    optimizer.zero_grad()
    for x, y in window:
        # forward: autograd records a graph while it computes.
        prediction = linear_model(x, *parameters)
        loss = squared_error(prediction, y, examples)
        # gradient + accumulate: backward() adds into .grad.
        loss.backward()
        window_loss += loss.detach()
    # update: step() reads .grad and leaves it as it is.
    optimizer.step()
    return window_loss


def train(problem: Problem) -> Iterator[list[np.ndarray]]:
    """Yield [W, b] as NumPy arrays after every update.

    Raises NotImplementedError unless the update is plain.
    """
    require_plain(problem)
    parameters, epoch = load(problem)
    optimizer = make_optimizer(parameters, problem)
    steps = problem.accumulation_steps
    for _ in range(problem.epochs):
        for window in windows(epoch, steps):
            train_window(parameters, optimizer, window)
            yield snapshot(parameters)
