"""A linear model and its squared error."""

import jax.numpy as jnp
from jax import Array


def linear_model(x: Array, W: Array, b: Array) -> Array:
    """Return xW + b, of shape (examples, outputs)."""
    return x @ W + b


def squared_error(
    prediction: Array, target: Array, examples: int
) -> Array:
    """Return the summed squared error over `examples`.

    Both arguments have shape (examples, outputs), the result
    is a scalar. Pass the window's examples, not the
    micro-batch's, and the losses of a window add up to it.
    """
    return jnp.square(prediction - target).sum() / examples
