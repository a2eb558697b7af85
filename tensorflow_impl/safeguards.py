"""What stands between the gradient and the update."""

from collections.abc import Sequence

import tensorflow as tf

from .progress import Progress


def clip(
    gradients: Sequence[tf.Tensor], max_norm: float | None
) -> Sequence[tf.Tensor]:
    """Scale all alike, to a global norm of max_norm."""
    if max_norm is None:
        return gradients
    clipped, _ = tf.clip_by_global_norm(gradients, max_norm)
    return clipped


def ordered_clip(
    gradients: Sequence[tf.Tensor], max_norm: float
) -> Sequence[tf.Tensor]:
    """Scale to max_norm at most; squares add up in order."""
    norm_2 = sum(
        n
        for g in gradients
        for n in tf.unstack(tf.reshape(g * g, [-1]))
    )
    coefficient = max_norm * (1 / tf.sqrt(norm_2))
    coefficient = tf.minimum(
        coefficient, tf.ones_like(coefficient)
    )
    return [g * coefficient for g in gradients]


def usable(
    gradients: Sequence[tf.Tensor], progress: Progress
) -> bool:
    """Whether to update with these gradients.

    Raises FloatingPointError if they are not finite and
    the policy is to "raise".
    """
    policy = progress.problem.non_finite
    finite = all(
        tf.reduce_all(tf.math.is_finite(g)) for g in gradients
    )
    if not finite and policy == "raise":
        raise FloatingPointError(
            f"update {progress.updates + 1}: "
            "the gradient is not finite"
        )
    return finite or policy == "apply"
