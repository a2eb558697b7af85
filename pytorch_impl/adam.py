"""Adam in elementary operations, one rounding each."""

import torch
from torch import Tensor

from .constants import Numbers

Moments = tuple[Tensor, Tensor, Tensor]
New = tuple[Tensor, Moments]


def averages(
    g: Tensor, moments: Moments, numbers: Numbers
) -> Moments:
    """Return Adam's moments, and the last maximum."""
    (m, v, v_max), (beta1, gain1) = moments, numbers["first"]
    beta2, gain2 = numbers["second"]
    m = m * beta1 + g * gain1
    return m, v * beta2 + (g * g) * gain2, v_max


def adam_step(
    w: Tensor, m: Tensor, v: Tensor, numbers: Numbers
) -> Tensor:
    """Return w after the step (Kingma and Ba, 2015)."""
    # torch.sqrt rounds as MKL does, rsqrt as 1 / IEEE sqrt;
    # above `tiny`, v = 0 gives 0 and not 0 times infinity.
    tiny = torch.finfo(v.dtype).tiny
    root = v * torch.rsqrt(v.clamp(min=tiny))
    direction = m / (
        root * numbers["unbias"] + numbers["eps"]
    )
    return w * numbers["decay"] - direction * numbers["step"]


def adam(
    w: Tensor, g: Tensor, moments: Moments, numbers: Numbers
) -> New:
    """Adam or AdamW: one of `l2` and `decay` does nothing."""
    moments = averages(
        g + w * numbers["l2"], moments, numbers
    )
    m, v, _ = moments
    return adam_step(w, m, v, numbers), moments


def amsgrad(
    w: Tensor, g: Tensor, moments: Moments, numbers: Numbers
) -> New:
    """The same, with the largest second moment so far."""
    m, v, v_max = averages(
        g + w * numbers["l2"], moments, numbers
    )
    v_max = torch.maximum(v_max, v)
    return adam_step(w, m, v_max, numbers), (m, v, v_max)
