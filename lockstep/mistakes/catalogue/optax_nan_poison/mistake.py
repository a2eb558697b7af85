"""The accumulator is reset by a multiplication with zero, which keeps NaN."""

from dataclasses import replace

import numpy as np

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Place, Theta


def nans_zeroed(accumulator: Theta, at: Place) -> Theta:
    """Take NaN for 0, in the gradient that is used, not in the accumulator."""
    return np.where(accumulator == accumulator, accumulator, at.number(0))


def times_zero(accumulator: Theta, at: Place) -> Theta:
    """Reset by multiplying: 0 * inf and 0 * NaN are NaN."""
    return accumulator * 0


def times_zero_in_place(accumulator: Theta, at: Place) -> Theta:
    """The same where an update leaves its gradient, free of NaN, in the accumulator."""
    return np.zeros_like(accumulator) if at.taken else accumulator * 0


MISTAKE = Mistake(
    title="Resetting by a multiplication with 0 keeps NaN in the accumulator for ever",
    explanation=(
        "optax.MultiSteps empties its sum with (1 - emit) * sum, and 0 * NaN is NaN, as 0 * inf"
        " is. Safeguards inside of it see the sum, not the micro-batch, and so cannot help."
        " Measured in optax 0.2.8, sum mode, SGD at rate 1, K = 3, gradients of (1, 1) and one of"
        " (NaN, 1) in micro-step 2: with plain SGD the first parameter is NaN at micro-step 2"
        " already, since what is not emitted is multiplied by 0 as well; with zero_nans() inside"
        " it stays at 0 for ever while the second goes on, -3, -6, -9, and the sum is (NaN, 0)"
        " after every boundary; with apply_if_finite(sgd, 5) inside nothing moves for five"
        " windows, and then the NaN is let through. zero_nans() inside does not stop an infinity:"
        " what is not emitted is 0 times it, so that the parameter is NaN in the same micro-step,"
        " or infinite where that is the boundary. should_skip_update_fn=skip_not_finite works, and"
        " so does zero_nans() outside, before MultiSteps."
    ),
    signature=(
        "Right up to the first micro-batch with NaN or inf. From its window on the coordinates that"
        " it hit get a gradient of 0 in every update, and move by momentum and decay alone, while"
        " those that it did not hit go on. Nothing is reported. Where the sum itself is cleaned,"
        " as in PyTorch, where take_update writes the cleaned gradient into .grad, this lasts one"
        " window."
    ),
    family="precision",
    frequency=2,
    severity=5,
    stages=replace(STAGES, normalise=nans_zeroed, reset=times_zero),
    forms=(replace(STAGES, normalise=nans_zeroed, reset=times_zero_in_place),),
    look_alikes={
        "zero-only-if-updated": (
            "coordinates that were finite, here b: they go on moving here, and all stand still"
            " there"
        ),
        "nonfinite-zeroed": "the window after: its gradient is whole there, and has zeros here",
        "skipped-microbatch-replaced": "the window after: it is right there",
    },
    evidence=(
        (
            "https://github.com/google-deepmind/optax/issues/828",
            "incompatibility between zero_nans() and MultiSteps",
        ),
        (
            "https://github.com/google-deepmind/optax/pull/1746",
            "apply_if_finite gives up after max_consecutive_errors and accepts the update",
        ),
    ),
    kind="library",
)
