"""1e-6 is added to the norm that is clipped by."""

from dataclasses import replace

import numpy as np

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Place, Theta


def clip_as_torch(gradient: Theta, at: Place) -> Theta:
    """Scale by max_norm / (norm + 1e-6) where that is below 1."""
    if at.max_norm is None:
        return gradient
    norm = np.sqrt(sum((gradient * gradient).flat))
    coefficient = at.max_norm / (norm + at.number(1e-6))
    return gradient * coefficient if coefficient < 1 else gradient


MISTAKE = Mistake(
    title="1e-6 is added to the norm that is clipped by",
    explanation=(
        "torch.nn.utils.clip_grad_norm_ scales by max_norm / (norm + 1e-6), which spares it a"
        " division by 0. tf.clip_by_global_norm, Keras's global_clipnorm and"
        " optax.clip_by_global_norm add nothing. A port between them cannot be right to the last"
        " digits, and each side does what its documentation says. It matters for a small max_norm:"
        " with 0.01, clipped gradients differ by up to 1e-4 of their size."
    ),
    signature=(
        "Clipped gradients are too small by the factor 1 - 1e-6 / norm, very nearly, with the"
        " direction unchanged; others are right. At norm 10 that is 1e-7, far above the rounding of"
        " float64 and about that of float32."
    ),
    family="clipping",
    frequency=5,
    severity=1,
    stages=replace(STAGES, clip=clip_as_torch),
    look_alikes={
        "float32-settings": "an update that is not clipped: right here",
    },
    evidence=(
        (
            "https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grads_with_norm_.html",
            "grad * min(max_norm / (total_norm + 1e-6), 1)",
        ),
        (
            "https://github.com/goodfire-ai/spd/issues/643",
            "a port to optax: about 1e-4 relative difference at max_norm 0.01, every update",
        ),
        (
            "https://github.com/google/flax/issues/859",
            "a proposed clip_grad_norm in JAX with the 1e-6 of PyTorch's",
        ),
    ),
    kind="policy",
)
