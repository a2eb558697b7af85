"""Each micro-batch's own gradient is clipped, and not their sum."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place, Theta, clip_to


def add_clipped(accumulator: Theta, gradient: Theta, at: Place) -> Theta:
    """Clip the micro-batch's share of the window's gradient, and add it."""
    return accumulator + clip_to(gradient, scaled(at.max_norm, at))


def add_clipped_mean(accumulator: Theta, gradient: Theta, at: Place) -> Theta:
    """Clip the micro-batch's mean gradient, and add its share."""
    norm = scaled(at.max_norm, at)
    if norm is not None:
        norm = norm * at.examples / at.window_examples
    return accumulator + clip_to(gradient, norm)


def add_clipped_equal(accumulator: Theta, gradient: Theta, at: Place) -> Theta:
    """Clip the micro-batch's mean gradient, of which a window has the mean."""
    norm = scaled(at.max_norm, at)
    return accumulator + clip_to(gradient, None if norm is None else norm / at.window_length)


def scaled(norm: Number | None, at: Place) -> Number | None:
    """The norm that a gradient of this norm has under the loss scale."""
    return None if norm is None else norm * at.number(at.scale)


def not_at_all(gradient: Theta, at: Place) -> Theta:
    """The window's gradient is not clipped."""
    return gradient


MISTAKE = Mistake(
    title="Each micro-batch's gradient is clipped, and not the window's",
    explanation=(
        "Clipping comes before accumulation: every micro-batch's gradient is cut to max_norm, then"
        " they are added. It is what optax does with clip_by_global_norm chained before"
        " MultiSteps, whose inner optimizer alone sees the window; Keras did it with"
        " gradient_accumulation_steps until July 2024. A micro-batch with a large gradient loses"
        " weight against the others, which is not what clipping does to one large batch."
    ),
    signature=(
        "Nothing differs where no micro-batch exceeds max_norm and the window does not either. If"
        " the shares of the window's gradient are clipped, their sum may exceed max_norm, by up to"
        " K times. If the micro-batches' mean gradients are, the sum never does, but its direction"
        " changes. Windows of one micro-batch are right."
    ),
    family="clipping",
    frequency=4,
    severity=3,
    stages=replace(STAGES, accumulate=add_clipped, clip=not_at_all),
    forms=(
        replace(STAGES, accumulate=add_clipped),
        replace(STAGES, accumulate=add_clipped_mean),
        replace(STAGES, accumulate=add_clipped_equal),
    ),
    look_alikes={
        "clip-per-microbatch": "a window whose shares are below max_norm and whose sum is not:"
        " clipped there",
        "clip-ignored": "a window of one micro-batch above max_norm: clipped here",
        "clip-per-tensor": "windows of one micro-batch: right here",
    },
    evidence=(
        (
            "https://github.com/keras-team/keras/pull/19998",
            "removes wrong gradient clipping during accumulation",
        ),
        (
            "https://github.com/jenkspt/gpt-jax/issues/2",
            "a chain that clips and then accumulates, where the original accumulates and then"
            " clips",
        ),
        (
            "https://github.com/facebookresearch/lingua/pull/59",
            "clipping at each accumulation step is different from clipping just once",
        ),
    ),
)
