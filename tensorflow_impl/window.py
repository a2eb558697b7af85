"""A window's gradient, weighted, and in low precision.

A quantity of a window is its examples' weighted mean.
"""

from collections.abc import Sequence

import tensorflow as tf

from .data import Parameters, Weighted
from .model import linear_model


def window_gradient(
    parameters: Parameters,
    window: Sequence[Weighted],
    scale: float,
    compute_dtype: str | None,
) -> Sequence[tf.Tensor]:
    """Return the gradient of the weighted mean loss.

    The model computes in low precision, but its gradient
    accumulates in the parameters' own, through tf.cast.
    """
    W, b = parameters
    low = compute_dtype or W.dtype
    total = sum(tf.reduce_sum(w) for *_, w in window)
    sums = [tf.zeros_like(W), tf.zeros_like(b)]
    for x, y, weights in window:
        with tf.GradientTape() as tape:
            inputs = [tf.cast(t, low) for t in (x, W, b)]
            prediction = linear_model(*inputs)
            error = tf.cast(prediction, y.dtype) - y
            errors = tf.square(error) * (weights / total)
            loss = tf.reduce_sum(errors) * scale
        gradients = tape.gradient(loss, parameters)
        sums = [s + g for s, g in zip(sums, gradients)]
    # Unscaled before anything else looks at it.
    return [s / scale for s in sums]
