"""A gradient that is not finite becomes zero, and the update is taken."""

from dataclasses import replace

import numpy as np

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Place, Theta, finite, unscale


def zeroed(gradient: Theta, at: Place) -> Theta:
    """Unscale; all of a gradient that is not finite becomes zero."""
    gradient = unscale(gradient, at)
    return gradient if finite(gradient, at) else np.zeros_like(gradient)


def numbers_zeroed(gradient: Theta, at: Place) -> Theta:
    """Unscale; only the numbers that are not finite become zero."""
    gradient = unscale(gradient, at)
    return np.where(np.isfinite(gradient.astype(float)), gradient, at.number(0))


def always(gradient: Theta, at: Place) -> bool:
    """Nobody looks at the norm."""
    return True


MISTAKE = Mistake(
    title="A gradient that is not finite becomes zero, and the update is taken",
    explanation=(
        "nan_to_num, or a where around the gradient, is a line, and leaving out the update needs"
        " a branch, which a compiled function makes awkward. But an update with a gradient of"
        " zero is not nothing: momentum moves the parameters on, moments and weight decay shrink,"
        " and every counter counts it."
    ),
    signature=(
        "Only a window that is not finite shows it. Under plain SGD without decay the parameters"
        " stay, as they should; with momentum or decay they move, and a schedule is one update"
        " ahead from then on. Where only the numbers that are not finite become zero, the others"
        " remain, however large."
    ),
    family="precision",
    frequency=2,
    severity=3,
    stages=replace(STAGES, unscale=zeroed),
    forms=(replace(STAGES, unscale=numbers_zeroed, finite=always),),
    look_alikes={
        "sched-with-skipped-window": (
            "momentum, or weight decay, at a constant learning rate: that one is right there"
        ),
        "skipped-microbatch-counted": (
            "plain SGD: there the finite micro-batches of the window move the parameters"
        ),
    },
    evidence=(
        (
            "https://github.com/mlnomadpy/flaxchat/issues/6",
            "replaces bad gradients with zeros and still calls optimizer.update",
        ),
        (
            "https://github.com/marin-community/levanter/pull/973",
            "gradients were zeroed before; now the optimizer's state stays on a skip",
        ),
    ),
)
