"""A window's loss and gradient, weighted, in low precision.

A quantity of a window is its examples' weighted mean, so
that all its weights are needed before its first backward.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from .data import Parameters, Weighted
from .model import linear_model


def micro_loss(
    parameters: Parameters,
    x: Array,
    y: Array,
    shares: Array,
    compute_dtype: str | None,
) -> Array:
    """Return a micro-batch's share of its window's loss.

    The model computes in low precision, but its gradient
    comes back in the parameters' own, through astype.
    """
    low = compute_dtype or y.dtype
    x, *inputs = jax.tree.map(
        lambda t: t.astype(low), (x, *parameters)
    )
    error = linear_model(x, *inputs).astype(y.dtype) - y
    return (jnp.square(error) * shares).sum()


# Compiled once for each shape: pad examples, with weight 0.
micro_gradient = jax.jit(
    jax.value_and_grad(micro_loss),
    static_argnames="compute_dtype",
)


def weighted_gradient(
    parameters: Parameters,
    window: Sequence[Weighted],
    scale: float,
    compute_dtype: str | None,
) -> tuple[Array, Sequence[Array]]:
    """Return the loss of a window, and its gradient."""
    total = sum(weights.sum() for *_, weights in window)
    window_loss = 0.0
    sums = jax.tree.map(jnp.zeros_like, parameters)
    for x, y, weights in window:
        shares = weights / total * scale
        loss, gradients = micro_gradient(
            parameters, x, y, shares, compute_dtype
        )
        sums = jax.tree.map(jnp.add, sums, gradients)
        window_loss += loss / scale
    # Unscaled before anything else looks at it.
    sums = jax.tree.map(lambda each: each / scale, sums)
    return window_loss, sums
