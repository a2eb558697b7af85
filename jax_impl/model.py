"""A linear model and its squared error."""

import jax.numpy as jnp
from jax import Array


def linear_model(x: Array, W: Array, b: Array) -> Array:
    """Return xW + b, of shape (examples, outputs)."""
    return x @ W + b


def squared_error(
    prediction: Array, target: Array, window_examples: int
) -> Array:
    """Return the squared error, summed, per example.

    `prediction` and `target`: (examples, outputs). Pass the
    examples of the whole window, not of this micro-batch,
    and the losses of a window's micro-batches add up to it.
    """
    return (
        jnp.square(prediction - target).sum()
        / window_examples
    )
