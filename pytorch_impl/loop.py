"""A padded window's loss and gradient, as one loop.

The loop is in the program: `scan` compiles a micro-step
once, however many there are. window.py's is Python's.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan
from torch.func import grad_and_value

from .data import Parameters
from .model import linear_model


def micro_loss(
    parameters: Parameters,
    x: Tensor,
    y: Tensor,
    shares: Tensor,
    compute_dtype: str | None,
) -> Tensor:
    """Return a micro-batch's share of its window's loss."""
    low = y.dtype
    if compute_dtype:
        low = getattr(torch, compute_dtype)
    inputs = [t.to(low) for t in (x, *parameters)]
    error = linear_model(*inputs).to(y.dtype) - y
    return (error.square() * shares).sum()


def window_gradient(
    parameters: Parameters,
    window: Sequence[Tensor],
    scale: Tensor,
    compute_dtype: str | None,
) -> tuple[Tensor, Sequence[Tensor]]:
    """Return a padded window's loss, and its gradient."""
    x, y, weights = window
    shares = weights / weights.sum() * scale
    # Or scan would look for a gradient of its own.
    W, b = (p.detach() for p in parameters)

    def add(sums: Any, micro_batch: Any) -> Any:
        gradients, loss = grad_and_value(micro_loss)(
            (W, b), *micro_batch, compute_dtype
        )
        found = [loss, *gradients]
        return [
            s + f for s, f in zip(sums, found)
        ], loss.clone()

    zeros = [torch.zeros_like(t) for t in (scale, W, b)]
    (loss, *sums), _ = scan(add, zeros, [x, y, shares])
    # Unscaled before anything else looks at it.
    return loss / scale, [each / scale for each in sums]
