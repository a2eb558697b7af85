"""What stands between the gradient and the update."""

from collections.abc import Sequence

import jax.numpy as jnp
import optax
from jax import Array

from .progress import Progress


def clip(
    gradients: Sequence[Array], max_norm: float | None
) -> Sequence[Array]:
    """Scale all alike, to a global norm of max_norm."""
    if max_norm is None:
        return gradients
    stock = optax.clip_by_global_norm(max_norm)
    clipped, _ = stock.update(
        gradients, stock.init(gradients)
    )
    return clipped


def ordered_clip(
    gradients: Sequence[Array], max_norm: float
) -> Sequence[Array]:
    """Scale to max_norm at most; squares add up in order."""
    norm_2 = sum(
        n for g in gradients for n in (g * g).flatten()
    )
    coefficient = max_norm * (1 / jnp.sqrt(norm_2))
    coefficient = jnp.minimum(
        coefficient, jnp.ones_like(coefficient)
    )
    return [g * coefficient for g in gradients]


def usable(
    gradients: Sequence[Array], progress: Progress
) -> bool:
    """Whether to update with these gradients.

    Raises FloatingPointError if they are not finite and
    the policy is to "raise".
    """
    policy = progress.problem.non_finite
    finite = all(jnp.isfinite(g).all() for g in gradients)
    if not finite and policy == "raise":
        raise FloatingPointError(
            f"update {progress.updates + 1}: "
            "the gradient is not finite"
        )
    return finite or policy == "apply"
