"""After a window that is not finite the gradients are not cleared."""

from dataclasses import replace

import numpy as np

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Place, Theta


def reset_if_taken(accumulator: Theta, at: Place) -> Theta:
    """Empty the accumulator after an update; leave it after a window that is skipped."""
    return np.zeros_like(accumulator) if at.taken else accumulator


MISTAKE = Mistake(
    title="After a skipped window the accumulator is not reset, and stays not finite",
    explanation=(
        "The reset stands in the branch of the update, next to step(), so that a window whose"
        " gradient is not finite skips both. Inf and NaN stay in the accumulator, whatever is"
        " added to them is not finite either, and no window is ever an update again. The guard"
        " that was to save the run ends it, silently: losses are computed, windows are skipped,"
        " and a dynamic loss scale is halved each time."
    ),
    signature=(
        "Right up to the first window that is not finite; from then on parameters and state keep"
        " their bits for ever. The gradient's norm is NaN or infinite in every later window, the"
        " loss scale tends to 0 (from 4 to 0.5 in three windows), and the count of updates stands."
        " A run without such a window is right."
    ),
    family="zeroing",
    frequency=2,
    severity=5,
    stages=replace(STAGES, reset=reset_if_taken),
    look_alikes={
        "optax-nan-poison": (
            "b after the window: it goes on moving there, where NaN is treated as 0; with"
            " apply_if_finite, which updates with NaN in the end, the two are alike until then"
        ),
        "never-updates": "a run in which all is finite: it moves here",
        "zero-before-update": "a run in which all is finite: it moves here",
        "skipped-microbatch-replaced": (
            "the windows after the one that is not finite: they are updates there"
        ),
    },
    evidence=(
        (
            "https://github.com/espnet/espnet/pull/3283",
            "zero_grad() was not invoked when the gradient was nan and accum_grad > 1: a fatal bug",
        ),
        (
            "https://github.com/verl-project/verl/issues/1506",
            "the right way round: zero_grad() in the branch that skips the update",
        ),
    ),
)
