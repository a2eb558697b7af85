"""Every number of the gradient is clipped on its own."""

from dataclasses import replace

import numpy as np

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Place, Theta


def clamp(gradient: Theta, at: Place) -> Theta:
    """Limit every number to max_norm in size."""
    if at.max_norm is None:
        return gradient
    return np.maximum(np.minimum(gradient, at.max_norm), -at.max_norm)


MISTAKE = Mistake(
    title="Every number of the gradient is clipped on its own, and not their norm",
    explanation=(
        "max_norm bounds each number of the gradient, not the norm of all: clip_grad_value_ for"
        " clip_grad_norm_, `clipvalue` for `global_clipnorm`, optax.clip for"
        " optax.clip_by_global_norm. The names are close and the argument is a number in both. Few"
        " numbers of a gradient are as large as a norm to clip to, so most often nothing is"
        " clipped, and where something is, the direction changes."
    ),
    signature=(
        "A window whose norm exceeds max_norm, though no number of its gradient does, is not"
        " clipped. One with such numbers differs from its unclipped gradient in these alone, which"
        " are max_norm in size; its norm may still be as large as max_norm times the square root of"
        " the number of parameters."
    ),
    family="clipping",
    frequency=3,
    severity=3,
    stages=replace(STAGES, clip=clamp),
    look_alikes={
        "clip-ignored": "a gradient of which a number exceeds max_norm: unchanged there",
        "clip-per-tensor": "within one tensor: one factor for all numbers there",
    },
    evidence=(
        (
            "https://github.com/anthonytorlucci/rlevo/issues/432",
            "the documentation says norm, the default clips values: 1000 numbers of 99 pass a limit"
            " of 100",
        ),
        (
            "https://github.com/neuroailab/tfutils/issues/115",
            "clipping by value might change the direction; asks for clipping by norm",
        ),
        (
            "https://github.com/ymcui/Eval-on-NN-of-RC/issues/3",
            "is a paper's gradient clip of 5 clipvalue or clipnorm? clipnorm",
        ),
        (
            "https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_value_.html",
            "the gradients are clipped in the range [-clip_value, clip_value]",
        ),
    ),
)
