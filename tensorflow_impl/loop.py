"""A padded window's loss and gradient, as one loop.

The loop is in the program: AutoGraph makes one of `for`, and
a micro-step is traced once. window.py's is Python's.
"""

from collections.abc import Sequence

import tensorflow as tf

from .data import Parameters
from .model import linear_model


def micro_loss(
    parameters: Parameters,
    x: tf.Tensor,
    y: tf.Tensor,
    shares: tf.Tensor,
    compute_dtype: str | None,
) -> tf.Tensor:
    """Return a micro-batch's share of its window's loss."""
    low = compute_dtype or y.dtype
    inputs = [tf.cast(t, low) for t in (x, *parameters)]
    error = tf.cast(linear_model(*inputs), y.dtype) - y
    return tf.reduce_sum(tf.square(error) * shares)


def micro_gradient(
    parameters: Parameters,
    x: tf.Tensor,
    y: tf.Tensor,
    shares: tf.Tensor,
    compute_dtype: str | None,
) -> Sequence[tf.Tensor]:
    """Return a micro-batch's loss and gradient, in a list."""
    with tf.GradientTape() as tape:
        loss = micro_loss(
            parameters, x, y, shares, compute_dtype
        )
    return [loss, *tape.gradient(loss, parameters)]


def window_gradient(
    parameters: Parameters,
    window: Sequence[tf.Tensor],
    scale: tf.Tensor | None,
    compute_dtype: str | None,
) -> tuple[tf.Tensor, Sequence[tf.Tensor]]:
    """Return a padded window's loss, and its gradient."""
    x, y, weights = window
    shares = weights / tf.reduce_sum(weights)
    if scale is not None:
        shares *= scale
    # From the first, for zeros would be read and added too.
    given = x[0], y[0], shares[0], compute_dtype
    sums = micro_gradient(parameters, *given)
    for i in tf.range(1, tf.shape(x)[0]):
        given = x[i], y[i], shares[i], compute_dtype
        found = micro_gradient(parameters, *given)
        sums = [s + f for s, f in zip(sums, found)]
    if scale is not None:
        # Unscaled before anything else looks at it.
        sums = [each / scale for each in sums]
    return sums[0], sums[1:]
