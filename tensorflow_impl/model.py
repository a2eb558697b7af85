"""A linear model and its squared error."""

import tensorflow as tf


def linear_model(
    x: tf.Tensor, W: tf.Tensor, b: tf.Tensor
) -> tf.Tensor:
    """Return xW + b, of shape (examples, outputs)."""
    return x @ W + b


def squared_error(
    prediction: tf.Tensor,
    target: tf.Tensor,
    window_examples: int,
) -> tf.Tensor:
    """Return the squared error, summed, per example.

    `prediction` and `target`: (examples, outputs). Pass the
    examples of the whole window, not of this micro-batch,
    and the losses of a window's micro-batches add up to it.
    """
    error = tf.square(prediction - target)
    return tf.reduce_sum(error) / window_examples
