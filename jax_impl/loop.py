"""A padded window's loss and gradient, as one loop.

The loop is in the program: `lax.fori_loop` compiles what
it does once, however often. window.py's is Python's.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from .data import Parameters
from .window import micro_gradient


def window_gradient(
    parameters: Parameters,
    window: Sequence[Array],
    scale: float | None,
    compute_dtype: str | None,
) -> tuple[Array, Sequence[Array]]:
    """Return a padded window's loss, and its gradient."""
    x, y, weights = window
    shares = weights / weights.sum()
    if scale is not None:
        shares *= scale

    def micro(i: ArrayLike) -> tuple[Array, Parameters]:
        given = x[i], y[i], shares[i], compute_dtype
        return micro_gradient(parameters, *given)

    def add(i: Array, sums: Any) -> Any:
        return jax.tree.map(jnp.add, sums, micro(i))

    # From the first, for zeros would be read and added too.
    sums = lax.fori_loop(1, len(x), add, micro(0))
    if scale is not None:
        # Unscaled before anything else looks at it.
        sums = jax.tree.map(lambda each: each / scale, sums)
    # Or XLA would write out all squares that a norm adds up.
    return lax.optimization_barrier(sums)
