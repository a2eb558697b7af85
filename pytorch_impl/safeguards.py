"""What stands between the gradient and the update."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .progress import Progress


def clip(
    gradients: Sequence[Tensor], max_norm: float | None
) -> Sequence[Tensor]:
    """Scale all alike, to a global norm of max_norm.

    clip_grad_norm_ would add 1e-6 to the norm.
    """
    if max_norm is None:
        return gradients
    norm = torch.nn.utils.get_total_norm(gradients)
    coefficient = (max_norm / norm).clamp(max=1.0)
    return [g * coefficient for g in gradients]


def ordered_clip(
    gradients: Sequence[Tensor], max_norm: float
) -> Sequence[Tensor]:
    """Scale to max_norm at most; squares add up in order."""
    norm_2 = sum(
        n for g in gradients for n in (g * g).flatten()
    )
    coefficient = max_norm * torch.rsqrt(norm_2)
    coefficient = torch.minimum(
        coefficient, torch.ones_like(coefficient)
    )
    return [g * coefficient for g in gradients]


def usable(
    gradients: Sequence[Tensor], progress: Progress
) -> bool:
    """Whether to update with these gradients.

    Raises FloatingPointError if they are not finite and
    the policy is to "raise".
    """
    policy = progress.problem.non_finite
    finite = all(g.isfinite().all() for g in gradients)
    if not finite and policy == "raise":
        raise FloatingPointError(
            f"update {progress.updates + 1}: "
            "the gradient is not finite"
        )
    return finite or policy == "apply"
