"""Adam in elementary operations, one rounding each."""

import jax.numpy as jnp
from jax import Array

from .constants import Numbers

Moments = tuple[Array, Array, Array]
New = tuple[Array, Moments]


def averages(
    g: Array, moments: Moments, numbers: Numbers
) -> Moments:
    """Return Adam's moments, and the last maximum."""
    (m, v, v_max), (beta1, gain1) = moments, numbers["first"]
    beta2, gain2 = numbers["second"]
    m = m * beta1 + g * gain1
    return m, v * beta2 + (g * g) * gain2, v_max


def adam_step(
    w: Array, m: Array, v: Array, numbers: Numbers
) -> Array:
    """Return w after the step (Kingma and Ba, 2015)."""
    # sqrt(v), as 1 / sqrt(v) is what PyTorch has of IEEE's;
    # above `tiny`, v = 0 gives 0 and not 0 times infinity.
    tiny = jnp.finfo(v.dtype).tiny
    root = v * (1 / jnp.sqrt(jnp.maximum(v, tiny)))
    direction = m / (
        root * numbers["unbias"] + numbers["eps"]
    )
    return w * numbers["decay"] - direction * numbers["step"]


def adam(
    w: Array, g: Array, moments: Moments, numbers: Numbers
) -> New:
    """Adam or AdamW: one of `l2` and `decay` does nothing."""
    moments = averages(
        g + w * numbers["l2"], moments, numbers
    )
    m, v, _ = moments
    return adam_step(w, m, v, numbers), moments


def amsgrad(
    w: Array, g: Array, moments: Moments, numbers: Numbers
) -> New:
    """The same, with the largest second moment so far."""
    m, v, v_max = averages(
        g + w * numbers["l2"], moments, numbers
    )
    v_max = jnp.maximum(v_max, v)
    return adam_step(w, m, v_max, numbers), (m, v, v_max)
