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


def micro_gradient(
    parameters: Parameters,
    x: Tensor,
    y: Tensor,
    shares: Tensor,
    compute_dtype: str | None,
) -> Sequence[Tensor]:
    """Return a micro-batch's loss and gradient, in a list."""
    gradients, loss = grad_and_value(micro_loss)(
        parameters, x, y, shares, compute_dtype
    )
    return [loss, *gradients]


@torch.no_grad()  # or scan would look for one of its own
def window_gradient(
    parameters: Parameters,
    window: Sequence[Tensor],
    scale: Tensor | None,
    compute_dtype: str | None,
) -> tuple[Tensor, Sequence[Tensor]]:
    """Return a padded window's loss, and its gradient."""
    x, y, weights = window
    shares = weights / weights.sum()
    if scale is not None:
        shares = shares * scale

    def add(sums: Any, micro_batch: Any) -> Any:
        given = *micro_batch, compute_dtype
        found = micro_gradient(parameters, *given)
        return [s + f for s, f in zip(sums, found)], []

    # From the first, for zeros would be read and added too.
    first = x[0], y[0], shares[0], compute_dtype
    sums = micro_gradient(parameters, *first)
    if len(x) > 1:
        sums, _ = scan(add, sums, [x[1:], y[1:], shares[1:]])
    if scale is not None:
        # Unscaled before anything else looks at it.
        sums = [each / scale for each in sums]
    return sums[0], sums[1:]
