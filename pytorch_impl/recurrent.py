"""A recurrent network, whose gradient is a sum over time.

Its weights are used at every time step, and one backward()
adds up what each use contributes. Truncated, the sequence is
cut into chunks, and .grad adds up one backward() for each.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .data import Batch
from .model import linear_model, squared_error

# U: (features, units), V: (units, units), c: (units,),
# W: (units, outputs), b: (outputs,)
Weights = Sequence[Tensor]


def cell(
    x: Tensor, h: Tensor, U: Tensor, V: Tensor, c: Tensor
) -> Tensor:
    """Return the next hidden state, (examples, units)."""
    return torch.tanh(x @ U + h @ V + c)


def chunk_loss(
    weights: Weights, chunk: Batch, h: Tensor, pairs: int
) -> tuple[Tensor, Tensor]:
    """Return the squared error, per pair, and the last h.

    x: (time steps, examples, features), y: (.., .., outputs).
    Pass the (time step, example) pairs of the whole sequence,
    and the losses of its chunks add up to its loss.
    """
    U, V, c, W, b = weights
    loss = 0.0
    for x, y in zip(*chunk):
        h = cell(x, h, U, V, c)
        loss += squared_error(linear_model(h, W, b), y, pairs)
    return loss, h


def chunk_gradient(
    weights: Weights, chunk: Batch, h: Tensor, pairs: int
) -> tuple[list[Tensor], Tensor]:
    """Return the gradient through a chunk, and the last h."""
    for weight in weights:
        weight.grad = None
    loss, h = chunk_loss(weights, chunk, h, pairs)
    # gradient + accumulate: autograd sums over time steps.
    loss.backward()
    return [weight.grad for weight in weights], h


def truncated_gradient(
    weights: Weights,
    sequence: Batch,
    h: Tensor,
    pairs: int,
    length: int,
) -> tuple[list[Tensor], Tensor]:
    """Return the chunks' gradients, added up, and the last h.

    What a loss owes to earlier chunks, by way of h, is left
    out: not the gradient, but one chunk's memory is enough.
    """
    for weight in weights:
        weight.grad = None
    x, y = sequence
    for start in range(0, len(x), length):
        time = slice(start, start + length)
        chunk = x[time], y[time]
        # cut: h holds the graph, and backward() follows it.
        h = h.detach()
        loss, h = chunk_loss(weights, chunk, h, pairs)
        # gradient + accumulate: backward() adds into .grad.
        loss.backward()
    return [weight.grad for weight in weights], h


def gradient(problem: Any) -> list[np.ndarray]:
    """Return U, V, c, W and b's gradients, and the last h."""
    p = problem
    x, y, h = map(torch.tensor, (p.x, p.y, p.h))
    given = p.U, p.V, p.c, p.W, p.b
    weights = [
        torch.tensor(weight, requires_grad=True)
        for weight in given
    ]
    task = weights, (x, y), h, p.pairs
    if p.length is None:
        gradients, h = chunk_gradient(*task)
    else:
        gradients, h = truncated_gradient(*task, p.length)
    return [t.numpy(force=True) for t in (*gradients, h)]
