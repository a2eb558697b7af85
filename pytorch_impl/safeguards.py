"""What stands between the gradient and the update."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def global_norm(gradients: Sequence[Tensor]) -> Tensor:
    """Return the square root of the sum of all squares."""
    return torch.nn.utils.get_total_norm(
        gradients, foreach=False
    )


def usable(norm: Tensor, policy: str, update: int) -> bool:
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
    gradients: Sequence[Tensor],
    norm: Tensor,
    max_norm: float | None,
) -> Sequence[Tensor]:
    """Scale all alike, to a global norm of max_norm.

    clip_grad_norm_ would add 1e-6 to the norm.
    """
    if max_norm is None:
        return gradients
    coefficient = (max_norm / norm).clamp(max=1.0)
    return [g * coefficient for g in gradients]
