"""Sums in an order that no library chooses."""

from collections.abc import Sequence

import tensorflow as tf


def ordered_model(
    x: tf.Tensor, W: tf.Tensor, b: tf.Tensor
) -> tf.Tensor:
    """Return xW + b, summed from b over features in order.

    x has shape (1, features): one example.
    """
    rows = tf.unstack(tf.transpose(x) * W)
    return sum(rows, tf.convert_to_tensor(b))


def ordered_clip(
    gradients: Sequence[tf.Tensor], max_norm: float
) -> Sequence[tf.Tensor]:
    """Scale to max_norm at most; squares add up in order."""
    norm_2 = sum(
        n
        for g in gradients
        for n in tf.unstack(tf.reshape(g * g, [-1]))
    )
    coefficient = max_norm * (1 / tf.sqrt(norm_2))
    coefficient = tf.minimum(
        coefficient, tf.ones_like(coefficient)
    )
    return [g * coefficient for g in gradients]
