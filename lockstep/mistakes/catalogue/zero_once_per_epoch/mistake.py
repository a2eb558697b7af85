"""Gradients are cleared at the start of an epoch only."""

from dataclasses import replace

import numpy as np

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Place, Theta, clip


def keep_in_epoch(accumulator: Theta, at: Place) -> Theta:
    """No reset, but before a window that begins with an epoch's first micro-batch."""
    done = at.micro_step + 1
    begins = done == at.micro_steps or done % len(at.problem.micro_batches) == 0
    return np.zeros_like(accumulator) if begins else accumulator


def clip_in_place(gradient: Theta, at: Place) -> Theta:
    """Clip, and leave the clipped gradient where the sum was."""
    at.kept["clipped"] = clip(gradient, at)
    return at.kept["clipped"]


def keep_clipped_in_epoch(accumulator: Theta, at: Place) -> Theta:
    """The same of an accumulator that was unscaled and clipped in place, as .grad is."""
    return keep_in_epoch(at.kept["clipped"] if at.taken else accumulator, at)


MISTAKE = Mistake(
    title="The accumulator is reset once an epoch, not once a window",
    explanation=(
        "The reset stands before the loop over an epoch's batches instead of in it, where it is"
        " easily left when a loop with one update an epoch is cut into batches."
        " Within an epoch every update uses the sum of all gradients since the epoch's start. Any"
        " accumulator that outlives its window can have it: .grad in PyTorch, a list of variables"
        " in TensorFlow, a tree of zeros made before the inner loop in JAX."
    ),
    signature=(
        "The first update of every epoch is right with respect to the parameters that it starts"
        " from, and all others are not; update 2 is the first to differ. The coefficient matrix"
        " has a staircase that starts again with every epoch."
    ),
    family="zeroing",
    frequency=3,
    severity=4,
    stages=replace(STAGES, reset=keep_in_epoch),
    forms=(replace(STAGES, clip=clip_in_place, reset=keep_clipped_in_epoch),),
    look_alikes={
        "missing-zero-grad": (
            "a second epoch: its first row of the coefficient matrix has the micro-batches of one"
            " window here, and of all windows before there. In one epoch they are the same"
        ),
        "leftover-leaks": (
            "N a multiple of K: nothing is left over then, and this one still differs at update 2"
        ),
    },
    evidence=(
        (
            "https://github.com/pytorch/pytorch/issues/47175",
            "calling it at the beginning of each epoch is called an extremely nasty bug",
        ),
        (
            "https://github.com/heartcored98/Standalone-DeepLearning/issues/11",
            "one zero_grad() an epoch in several labs of a course, admitted and corrected",
        ),
        (
            "https://github.com/salesforce/corr_based_prediction/issues/1",
            "zero_grad outside of the training stage, so that gradients add up along the data",
        ),
    ),
)
