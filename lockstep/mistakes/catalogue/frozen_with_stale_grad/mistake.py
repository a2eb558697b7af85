"""A frozen parameter keeps its last gradient, and the optimizer goes on applying it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Place, Stages, Theta, clip


def after_update(at: Place) -> bool:
    """b is frozen after the first update."""
    return at.update > 0


def after_epoch(at: Place) -> bool:
    """b is frozen after the first epoch."""
    return at.epoch > 0


def stale(frozen: Callable[[Place], bool]) -> Stages:
    """Once b is frozen, its sum is that of the last window before, as it was added up."""

    def accumulate(accumulator: Theta, gradient: Theta, at: Place) -> Theta:
        total = accumulator + gradient
        if not frozen(at):
            at.kept["stale"] = total[-1:]
        return np.vstack([total[:-1], at.kept["stale"]])

    return replace(STAGES, accumulate=accumulate)


def clip_in_place(gradient: Theta, at: Place) -> Theta:
    """Clip, and leave the clipped gradient where the next window finds it."""
    clipped = clip(gradient, at)
    at.kept["stale"] = clipped[-1:]
    return clipped


def stale_in_place(frozen: Callable[[Place], bool]) -> Stages:
    """The same of a gradient that is unscaled and clipped in place, and again in every window."""
    return replace(stale(frozen), clip=clip_in_place)


MISTAKE = Mistake(
    title="A frozen parameter keeps its last gradient, and goes on moving",
    explanation=(
        "requires_grad_(False) stops new gradients and leaves .grad as it is; an optimizer looks"
        " at .grad alone, and applies the old one in every update. It needs a reset that leaves"
        " the frozen tensor out, such as one of those parameters that require a gradient;"
        " optimizer.zero_grad() would clear it. Accumulators of your own do the same in TensorFlow"
        " and JAX, where one list of what trains rules the reset and the addition, but not the"
        " update. Set .grad to None when you freeze, or take the tensor out of the optimizer."
    ),
    signature=(
        "Update 1 is right. From then on the frozen tensor, here b, moves with the same gradient"
        " in every update, a straight line under SGD at a constant rate; clipping and a loss scale"
        " that act in place shrink it again and again. The gradient counts in the global norm. A"
        " weight of 1 with gradient 1, at rate 0.1 and momentum 0.9, goes to 0.9, is frozen there,"
        " and goes on to 0.71, 0.439 and 0.095. What is frozen as it was meant keeps its bits."
    ),
    family="zeroing",
    frequency=3,
    severity=3,
    stages=stale(after_update),
    forms=(stale_in_place(after_update), stale(after_epoch), stale_in_place(after_epoch)),
    look_alikes={
        "none-vs-zero-grad": (
            "the gradient of the tensor that should stand still: zero there, where momentum and"
            " decay alone move it, and the old one here"
        ),
        "params-not-in-optimizer": "b after update 1: constant bits there, still moving here",
        "zero-wrong-object": "the gradient of b: it grows there, and stays the same here",
    },
    evidence=(
        (
            "https://github.com/neuralmagic/sparseml/issues/965",
            "parameters that are set not to require a gradient are still updated",
        ),
        (
            "https://github.com/neuralmagic/sparseml/pull/966",
            "the fix: clear .grad to prevent optimizer updates, since Adam looks at .grad and"
            " ignores requires_grad",
        ),
        (
            "https://github.com/NVIDIA/Megatron-LM/pull/6871",
            "with requires_grad alone set to False the previous gradient can be reused and the"
            " inactive parameter updated again",
        ),
        (
            "https://github.com/facebookresearch/fairseq/issues/4702",
            "parameters are still updated although requires_grad is False (symptom only)",
        ),
    ),
)
