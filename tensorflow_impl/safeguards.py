"""What stands between the gradient and the update."""

import math
from collections.abc import Sequence

import tensorflow as tf


def global_norm(gradients: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return the square root of the sum of all squares."""
    return tf.linalg.global_norm(gradients)


def usable(norm: tf.Tensor, policy: str, update: int) -> bool:
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
    gradients: Sequence[tf.Tensor],
    norm: tf.Tensor,
    max_norm: float | None,
) -> Sequence[tf.Tensor]:
    """Scale all alike, to a global norm of max_norm.

    Where the norm is not finite, libraries differ.
    """
    if max_norm is None:
        return gradients
    clipped, _ = tf.clip_by_global_norm(
        gradients, max_norm, norm
    )
    return clipped
