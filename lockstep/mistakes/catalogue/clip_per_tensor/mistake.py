"""Each parameter's gradient is clipped by its own norm."""

from dataclasses import replace

import numpy as np

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Place, Theta, clip_to


def each(gradient: Theta, at: Place) -> Theta:
    """Clip W's gradient and b's, each to max_norm."""
    return np.vstack([clip_to(part, at.max_norm) for part in (gradient[:-1], gradient[-1:])])


MISTAKE = Mistake(
    title="Each parameter is clipped by its own norm, not all by the global one",
    explanation=(
        "max_norm is applied to every tensor on its own: Keras's `clipnorm` and tf.clip_by_norm do"
        " so, where `global_clipnorm` and tf.clip_by_global_norm do what PyTorch's"
        " clip_grad_norm_ does. The tensors' gradients are scaled by different factors, so the"
        " direction of the whole changes, and it may exceed max_norm, by up to the square root of"
        " the number of tensors."
    ),
    signature=(
        "The factor against the unclipped gradient differs between W and b: it is 1 for a tensor"
        " below max_norm, and max_norm / its own norm for one above. A window whose global norm"
        " exceeds max_norm, though neither W's nor b's does, is not clipped. With one tensor"
        " nothing differs."
    ),
    family="clipping",
    frequency=4,
    severity=3,
    stages=replace(STAGES, clip=each),
    look_alikes={
        "clip-by-value": "within one tensor: one factor for all numbers here",
        "clip-ignored": "a tensor above max_norm: clipped here",
        "clip-per-microbatch": "windows of one micro-batch: right there",
    },
    evidence=(
        (
            "https://github.com/keras-team/keras/issues/13575",
            "clipnorm is local, though the global norm is recommended",
        ),
        (
            "https://github.com/tensorflow/tensorflow/issues/36001",
            "clipnorm clips each weight's gradient independently; the direction is not preserved",
        ),
        ("https://github.com/tensorflow/tensorflow/issues/29108", "a request for the global norm"),
        (
            "https://github.com/huggingface/transformers/pull/614",
            "clipping was per parameter group, which differs from the global norm",
        ),
        (
            "https://github.com/NNPDF/nnpdf/issues/1210",
            "clipnorm or global_clipnorm: the path of the optimizer changes",
        ),
        (
            "https://github.com/tensorflow/tensorflow/issues/52348",
            "the documentation did not tell clipnorm from global_clipnorm",
        ),
    ),
)
