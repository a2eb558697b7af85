"""A window's loss and gradient, weighted, in low precision.

A quantity of a window is its examples' weighted mean, so
that all its weights are needed before its first backward.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .data import Parameters, Weighted
from .model import linear_model


def weighted_gradient(
    parameters: Parameters,
    window: Sequence[Weighted],
    scale: float,
    compute_dtype: str | None,
) -> tuple[Tensor, Sequence[Tensor]]:
    """Return the loss of a window, and its gradient.

    The model computes in low precision, but its gradient
    accumulates in the parameters' own, through .to().
    (autocast would leave the bias in high precision.)
    """
    high = low = parameters[0].dtype
    if compute_dtype:
        low = getattr(torch, compute_dtype)
    total = sum(weights.sum() for *_, weights in window)
    window_loss = 0.0
    for parameter in parameters:
        parameter.grad = None
    for x, y, weights in window:
        inputs = [t.to(low) for t in (x, *parameters)]
        error = linear_model(*inputs).to(high) - y
        loss = (error.square() * (weights / total)).sum()
        (loss * scale).backward()
        window_loss += loss.detach()
    # Unscaled before anything else looks at it.
    return window_loss, [p.grad / scale for p in parameters]
