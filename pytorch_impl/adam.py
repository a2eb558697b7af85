"""Adam in elementary operations, one rounding each."""

import torch
from torch import Tensor

from .constants import Numbers

Moments = tuple[Tensor, Tensor, Tensor]
New = tuple[Tensor, Moments]


def averages(
    g: Tensor, moments: Moments, s: Numbers
) -> Moments:
    """Return Adam's moments, and the last maximum."""
    (m, v, v_max), (beta1, gain1) = moments, s["first"]
    beta2, gain2 = s["second"]
    m = m * beta1 + g * gain1
    return m, v * beta2 + (g * g) * gain2, v_max


def adam_step(
    w: Tensor, m: Tensor, v: Tensor, s: Numbers
) -> Tensor:
    """Return w after the step (Kingma and Ba, 2015)."""
    # torch.sqrt rounds as MKL does, rsqrt as 1 / IEEE sqrt;
    # above `tiny`, v = 0 gives 0 and not 0 times infinity.
    tiny = torch.finfo(v.dtype).tiny
    root = v * torch.rsqrt(v.clamp(min=tiny))
    direction = m / (root * s["unbias"] + s["eps"])
    return w * s["decay"] - direction * s["step"]


def adam(
    w: Tensor, g: Tensor, moments: Moments, s: Numbers
) -> New:
    """Adam or AdamW: one of `l2` and `decay` does nothing."""
    moments = averages(g + w * s["l2"], moments, s)
    m, v, _ = moments
    return adam_step(w, m, v, s), moments


def amsgrad(
    w: Tensor, g: Tensor, moments: Moments, s: Numbers
) -> New:
    """The same, with the largest second moment so far."""
    m, v, v_max = averages(g + w * s["l2"], moments, s)
    v_max = torch.maximum(v_max, v)
    return adam_step(w, m, v_max, s), (m, v, v_max)
