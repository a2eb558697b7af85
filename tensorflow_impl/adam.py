"""Adam in elementary operations, one rounding each."""

import numpy as np
import tensorflow as tf

from .constants import Numbers

Moments = tuple[tf.Tensor, tf.Tensor, tf.Tensor]
New = tuple[tf.Tensor, Moments]


def averages(
    g: tf.Tensor, moments: Moments, numbers: Numbers
) -> Moments:
    """Return Adam's moments, and the last maximum."""
    (m, v, v_max), (beta1, gain1) = moments, numbers["first"]
    beta2, gain2 = numbers["second"]
    m = m * beta1 + g * gain1
    return m, v * beta2 + (g * g) * gain2, v_max


def adam_step(
    w: tf.Tensor, m: tf.Tensor, v: tf.Tensor, numbers: Numbers
) -> tf.Tensor:
    """Return w after the step (Kingma and Ba, 2015)."""
    # sqrt(v), as 1 / sqrt(v) is what PyTorch has of IEEE's;
    # above `tiny`, v = 0 gives 0 and not 0 times infinity.
    tiny = np.finfo(v.dtype.as_numpy_dtype).tiny
    root = v * (1 / tf.sqrt(tf.maximum(v, tiny)))
    direction = m / (
        root * numbers["unbias"] + numbers["eps"]
    )
    return w * numbers["decay"] - direction * numbers["step"]


def adam(
    w: tf.Tensor,
    g: tf.Tensor,
    moments: Moments,
    numbers: Numbers,
) -> New:
    """Adam or AdamW: one of `l2` and `decay` does nothing."""
    moments = averages(
        g + w * numbers["l2"], moments, numbers
    )
    m, v, _ = moments
    return adam_step(w, m, v, numbers), moments


def amsgrad(
    w: tf.Tensor,
    g: tf.Tensor,
    moments: Moments,
    numbers: Numbers,
) -> New:
    """The same, with the largest second moment so far."""
    m, v, v_max = averages(
        g + w * numbers["l2"], moments, numbers
    )
    v_max = tf.maximum(v_max, v)
    return adam_step(w, m, v_max, numbers), (m, v, v_max)
