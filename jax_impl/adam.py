"""Adam in elementary operations, one rounding each."""

import jax.numpy as jnp
from jax import Array

from .constants import Numbers

Moments = tuple[Array, Array, Array]
New = tuple[Array, Moments]


def averages(
    g: Array, moments: Moments, s: Numbers
) -> Moments:
    """Return Adam's moments, and the last maximum."""
    (m, v, v_max), (beta1, gain1) = moments, s["first"]
    beta2, gain2 = s["second"]
    m = m * beta1 + g * gain1
    return m, v * beta2 + (g * g) * gain2, v_max


def adam_step(
    w: Array, m: Array, v: Array, s: Numbers
) -> Array:
    """Return w after the step (Kingma and Ba, 2015)."""
    # sqrt(v), as 1 / sqrt(v) is what PyTorch has of IEEE's;
    # above `tiny`, v = 0 gives 0 and not 0 times infinity.
    tiny = jnp.finfo(v.dtype).tiny
    root = v * (1 / jnp.sqrt(jnp.maximum(v, tiny)))
    direction = m / (root * s["unbias"] + s["eps"])
    return w * s["decay"] - direction * s["step"]


def adam(
    w: Array, g: Array, moments: Moments, s: Numbers
) -> New:
    """Adam or AdamW: one of `l2` and `decay` does nothing."""
    moments = averages(g + w * s["l2"], moments, s)
    m, v, _ = moments
    return adam_step(w, m, v, s), moments


def amsgrad(
    w: Array, g: Array, moments: Moments, s: Numbers
) -> New:
    """The same, with the largest second moment so far."""
    m, v, v_max = averages(g + w * s["l2"], moments, s)
    v_max = jnp.maximum(v_max, v)
    return adam_step(w, m, v_max, s), (m, v, v_max)
