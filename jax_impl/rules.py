"""Optimizers in elementary operations, one rounding each.

Multiplying by a constant rounds alike everywhere; dividing
by one does not.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array

from .constants import Numbers
from .data import Parameters

Moments = tuple[Array, Array]


def zeros(parameters: Parameters) -> list[Moments]:
    """Return zeros for both moments of every parameter."""
    return [
        (jnp.zeros_like(p), jnp.zeros_like(p))
        for p in parameters
    ]


def sgd(
    w: Array, g: Array, moments: Moments, s: Numbers
) -> tuple[Array, Moments]:
    """Descend with momentum and coupled weight decay."""
    m, v = moments
    g = g + w * s["l2"]
    m = m * s["momentum"] + g
    return w - m * s["rate"], (m, v)


def adamw(
    w: Array, g: Array, moments: Moments, s: Numbers
) -> tuple[Array, Moments]:
    """Take AdamW's update (Loshchilov and Hutter, 2019)."""
    m, v = moments
    beta1, gain1 = s["first"]
    beta2, gain2 = s["second"]
    m = m * beta1 + g * gain1
    v = v * beta2 + (g * g) * gain2
    # sqrt(v), as 1 / sqrt(v) is what PyTorch has of IEEE's;
    # above `tiny`, v = 0 gives 0 and not 0 times infinity.
    tiny = jnp.finfo(v.dtype).tiny
    root = v * (1 / jnp.sqrt(jnp.maximum(v, tiny)))
    direction = m / (root * s["unbias"] + s["eps"])
    return w * s["decay"] - direction * s["step"], (m, v)


RULES = {"sgd": sgd, "adamw": adamw}


def require_supported(problem: Any) -> None:
    """Refuse clipping, several examples, and other rules."""
    single = all(
        len(x) == 1 for x, _ in problem.micro_batches
    )
    known = problem.optimizer.name in RULES
    if (
        not single
        or not known
        or problem.max_norm is not None
    ):
        raise NotImplementedError(
            f"one by one, {[*RULES]} only"
        )
