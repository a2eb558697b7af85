"""A window's gradient, weighted, and in low precision.

A quantity of a window is its examples' weighted mean.
"""

from collections.abc import Sequence
from functools import partial

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
    W, b = parameters
    prediction = linear_model(
        x.astype(low), W.astype(low), b.astype(low)
    )
    errors = jnp.square(prediction.astype(y.dtype) - y)
    return (errors * shares).sum()


@partial(jax.jit, static_argnames="compute_dtype")
def window_gradient(
    parameters: Parameters,
    window: Sequence[Weighted],
    scale: float,
    compute_dtype: str | None,
) -> Sequence[Array]:
    """Return the gradient of the weighted mean loss."""
    total = sum(weights.sum() for *_, weights in window)
    sums = jax.tree.map(jnp.zeros_like, parameters)
    for x, y, weights in window:
        gradients = jax.grad(micro_loss)(
            parameters,
            x,
            y,
            weights / total * scale,
            compute_dtype,
        )
        sums = jax.tree.map(jnp.add, sums, gradients)
    # Unscaled before anything else looks at it.
    return jax.tree.map(lambda s: s / scale, sums)
