"""Only one of the parameters has its gradient cleared."""

from dataclasses import replace

import numpy as np

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Place, Theta, clip


def reset_weights(accumulator: Theta, at: Place) -> Theta:
    """Empty W's part; b's goes on into the next window."""
    return np.vstack([np.zeros_like(accumulator[:-1]), accumulator[-1:]])


def clip_in_place(gradient: Theta, at: Place) -> Theta:
    """Clip, and leave the clipped gradient where the sum was."""
    at.kept["clipped"] = clip(gradient, at)
    return at.kept["clipped"]


def reset_weights_in_place(accumulator: Theta, at: Place) -> Theta:
    """The same of an accumulator that was unscaled and clipped in place, as .grad is."""
    return reset_weights(at.kept["clipped"] if at.taken else accumulator, at)


MISTAKE = Mistake(
    title="Only some of the parameters have their gradients reset",
    explanation=(
        "What is zeroed is another object than what is trained: one layer, the first parameter"
        " group, one of two optimizers, a model that is only a part. The gradients of the rest go"
        " on from window to window. In PyTorch it is model.zero_grad() where the optimizer has"
        " more than the model, or a GAN's generator loss that deposits into the discriminator; in"
        " TensorFlow and JAX a reset that names the accumulators one by one and forgets one."
    ),
    signature=(
        "Update 1 is right. From update 2 on the tensors that are not reset, here b, use the sum"
        " of all gradients since the start, and the others are right until they feel it: through"
        " the next predictions, and through the global norm, whose growth shrinks every gradient"
        " that is clipped. The coefficient matrix, which is W's, is right."
    ),
    family="zeroing",
    frequency=3,
    severity=3,
    stages=replace(STAGES, reset=reset_weights),
    forms=(replace(STAGES, clip=clip_in_place, reset=reset_weights_in_place),),
    look_alikes={
        "missing-zero-grad": "update 2 of W: it is a sum of two windows there, and of one here",
        "params-not-in-optimizer": "b itself, which moves here and stands still there",
        "frozen-with-stale-grad": (
            "the gradient of b: it grows by a new term each window here, and stays the same there"
        ),
        "wd-on-bias": "a run without weight decay: only this one differs from the correct loop",
    },
    evidence=(
        (
            "https://github.com/Lightning-AI/pytorch-lightning/issues/591",
            "one optimizer's zero_grad() leaves what its loss deposited in the other network",
        ),
        (
            "https://github.com/Lightning-AI/pytorch-lightning/issues/557",
            "the gradients of the discriminator include those of the generator's update",
        ),
        (
            "https://github.com/FoundationVision/OmniTokenizer/issues/15",
            "the discriminator is updated with some gradients of the generator's loss",
        ),
        (
            "https://github.com/ajbrock/BigGAN-PyTorch/issues/25",
            "the discriminator's optimizer is not zeroed between its updates: a typo, fixed",
        ),
        (
            "https://github.com/Hsintien-Ng/idinvert_pytorch-reproduced/issues/1",
            "one of two zero_grad() calls was forgotten, fixed",
        ),
        (
            "https://github.com/AI-Hypercomputer/maxtext/pull/5285",
            "gradients of masked parameters in the norm to clip by, in JAX",
        ),
    ),
)
