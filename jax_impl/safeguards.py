"""What stands between the gradient and the update."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from jax import Array


def global_norm(gradients: Sequence[Array]) -> Array:
    """Return the square root of the sum of all squares."""
    return optax.tree.norm(gradients)


def usable(norm: Array, policy: str, update: int) -> bool:
    """Whether to update with a gradient of this norm.

    Not to "skip" a norm that is not finite would make NaN
    of the parameters. Raises FloatingPointError, if that is
    the policy.
    """
    if policy == "apply":
        return True
    finite = math.isfinite(norm)
    if not finite and policy == "raise":
        raise FloatingPointError(
            f"update {update + 1}: the gradient is not finite"
        )
    return finite


def clip(
    gradients: Sequence[Array],
    norm: Array,
    max_norm: float | None,
) -> Sequence[Array]:
    """Scale all alike, to a global norm of max_norm.

    Where the norm is not finite, libraries differ.
    """
    if max_norm is None:
        return gradients
    coefficient = jnp.minimum(1.0, max_norm / norm)
    return jax.tree.map(lambda g: g * coefficient, gradients)
