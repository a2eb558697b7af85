"""The loss scale is taken out after every micro-batch."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Place, Scale, Theta


def unscale_all(accumulator: Theta, gradient: Theta, at: Place) -> Theta:
    """Unscale the whole accumulator, with what was unscaled before."""
    return (accumulator + gradient) * at.number(1 / at.scale)


def unscale_and_grow(accumulator: Theta, gradient: Theta, at: Place) -> Theta:
    """The same, with a scale that grows with micro-batches, each of them scaled by it."""
    scale = at.kept.setdefault("scale", Scale(at.problem.loss_scale))
    earlier = accumulator * at.number(1 / scale.value)
    scale.grow()
    return earlier + gradient * at.number(1 / at.scale)


def leave(gradient: Theta, at: Place) -> Theta:
    """Nothing is left to unscale."""
    return gradient


MISTAKE = Mistake(
    title="The loss scale is taken out after every micro-batch",
    explanation=(
        "The accumulator holds all gradients of the window so far, so that unscaling it after"
        " every backward unscales the earlier ones again. GradScaler refuses a second unscale_()"
        " since its last update(); who adds an update() after every micro-batch silences it."
    ),
    signature=(
        "With a loss scale S, the last micro-batch of a window keeps its weight, the one before"
        " has 1/S of it, the one before that 1/S^2: K times too small for equal gradients, in the"
        " direction of the last. Nothing differs without a loss scale, or with K = 1."
    ),
    family="precision",
    frequency=3,
    severity=4,
    stages=replace(STAGES, accumulate=unscale_all, unscale=leave),
    forms=(replace(STAGES, accumulate=unscale_and_grow, unscale=leave),),
    look_alikes={
        "zero-per-microbatch": (
            "a problem without a loss scale, or a scale of 2: zeroing loses the earlier"
            " micro-batches there too, and here they keep a weight of 1/S"
        ),
        "clip-scaled-grads": "a loss scale without clipping: that one is right there",
    },
    evidence=(
        (
            "https://docs.pytorch.org/docs/stable/amp.html",
            "unscale_ only after all gradients of the update have been accumulated",
        ),
        (
            "https://github.com/huggingface/accelerate/issues/641",
            "clip_grad_norm_, which unscales, in every micro-step: an error with accumulation",
        ),
        (
            "https://github.com/Haian-Jin/LVSM/pull/19",
            "unscale_() has already been called; update() moved so that it always runs",
        ),
    ),
)
