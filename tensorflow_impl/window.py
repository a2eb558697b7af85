"""A window's loss and gradient, weighted, in low precision.

A quantity of a window is its examples' weighted mean, so
that all its weights are needed before its first backward.
"""

from collections.abc import Sequence

import tensorflow as tf

from .data import Parameters, Weighted
from .model import linear_model


def weighted_gradient(
    parameters: Parameters,
    window: Sequence[Weighted],
    scale: float,
    compute_dtype: str | None,
) -> tuple[tf.Tensor, Sequence[tf.Tensor]]:
    """Return the loss of a window, and its gradient.

    The model computes in low precision, but its gradient
    accumulates in the parameters' own, through tf.cast.
    """
    low = compute_dtype or parameters[0].dtype
    total = sum(tf.reduce_sum(w) for *_, w in window)
    window_loss = 0.0
    sums = [tf.zeros_like(p) for p in parameters]
    for x, y, weights in window:
        with tf.GradientTape() as tape:
            cast = [tf.cast(t, low) for t in (x, *parameters)]
            error = tf.cast(linear_model(*cast), y.dtype) - y
            shares = tf.square(error) * (weights / total)
            loss = tf.reduce_sum(shares) * scale
        gradients = tape.gradient(loss, parameters)
        sums = [t + g for t, g in zip(sums, gradients)]
        window_loss += loss / scale
    # Unscaled before anything else looks at it.
    return window_loss, [each / scale for each in sums]
