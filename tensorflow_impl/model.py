"""A linear model and its squared error."""

import tensorflow as tf


def linear_model(
    x: tf.Tensor, W: tf.Tensor, b: tf.Tensor
) -> tf.Tensor:
    """Return xW + b, of shape (examples, outputs)."""
    return x @ W + b


def squared_error(
    prediction: tf.Tensor, target: tf.Tensor, examples: int
) -> tf.Tensor:
    """Return the summed squared error over `examples`.

    Both arguments have shape (examples, outputs), the result
    is a scalar. Pass the window's examples, not the
    micro-batch's, and the losses of a window add up to it.
    """
    error = tf.square(prediction - target)
    return tf.reduce_sum(error) / examples
