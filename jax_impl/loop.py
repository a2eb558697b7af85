"""A padded window's loss and gradient, as one loop.

The loop is in the program: `lax.scan` compiles a micro-step
once, however many there are. window.py's is Python's.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from .data import Parameters
from .window import micro_gradient


def window_gradient(
    parameters: Parameters,
    window: Sequence[Array],
    scale: float,
    compute_dtype: str | None,
) -> tuple[Array, Sequence[Array]]:
    """Return a padded window's loss, and its gradient."""
    x, y, weights = window
    shares = weights / weights.sum() * scale

    def add(sums: Any, micro_batch: Any) -> Any:
        found = micro_gradient(
            parameters, *micro_batch, compute_dtype
        )
        return jax.tree.map(jnp.add, sums, found), None

    zeros = (
        jnp.zeros((), y.dtype),
        jax.tree.map(jnp.zeros_like, parameters),
    )
    sums, _ = lax.scan(add, zeros, (x, y, shares))
    # Unscaled before anything else looks at it.
    return jax.tree.map(lambda each: each / scale, sums)
