"""Sums in an order that no library chooses."""

from collections.abc import Sequence

import torch
from torch import Tensor


def ordered_model(x: Tensor, W: Tensor, b: Tensor) -> Tensor:
    """Return xW + b, summed from b over features in order.

    x has shape (1, features): one example.
    """
    return sum(x.T * W, b)


def ordered_clip(
    gradients: Sequence[Tensor], max_norm: float
) -> Sequence[Tensor]:
    """Scale to max_norm at most; squares add up in order."""
    norm_2 = sum(
        n for g in gradients for n in (g * g).flatten()
    )
    coefficient = max_norm * torch.rsqrt(norm_2)
    coefficient = torch.minimum(
        coefficient, torch.ones_like(coefficient)
    )
    return [g * coefficient for g in gradients]
