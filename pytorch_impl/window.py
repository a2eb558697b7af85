"""A window's gradient, weighted, and in low precision.

A quantity of a window is its examples' weighted mean.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .data import Parameters, Weighted
from .model import linear_model


def window_gradient(
    parameters: Parameters,
    window: Sequence[Weighted],
    scale: float,
    compute_dtype: str | None,
) -> Sequence[Tensor]:
    """Return the gradient of the weighted mean loss.

    The model computes in low precision, but its gradient
    accumulates in the parameters' own, through .to().
    """
    W, b = parameters
    low = W.dtype
    if compute_dtype:
        low = getattr(torch, compute_dtype)
    total = sum(weights.sum() for *_, weights in window)
    W.grad = b.grad = None
    for x, y, weights in window:
        prediction = linear_model(
            x.to(low), W.to(low), b.to(low)
        )
        errors = (prediction.to(W.dtype) - y).square()
        loss = (errors * (weights / total)).sum()
        (loss * scale).backward()
    # Unscaled before anything else looks at it.
    return [W.grad / scale, b.grad / scale]
