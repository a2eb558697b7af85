"""Sums in an order that no library chooses."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array


def ordered_model(x: Array, W: Array, b: Array) -> Array:
    """Return xW + b, summed from b over features in order.

    x has shape (1, features): one example.
    """
    return sum(x.T * W, b)


def ordered_clip(
    gradients: Sequence[Array], max_norm: float
) -> Sequence[Array]:
    """Scale to max_norm at most; squares add up in order."""
    norm_2 = sum(
        n for g in gradients for n in (g * g).flatten()
    )
    coefficient = max_norm * (1 / jnp.sqrt(norm_2))
    coefficient = jnp.minimum(
        coefficient, jnp.ones_like(coefficient)
    )
    return [g * coefficient for g in gradients]
