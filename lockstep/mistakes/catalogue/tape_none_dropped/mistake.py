"""A tensor whose last gradient of a window is None loses the whole window."""

from dataclasses import replace

import numpy as np

from lockstep.mistakes import Mistake
from lockstep.oracle import loop
from lockstep.oracle.loop import STAGES, Place, Theta
from lockstep.oracle.rules import Constants, State


def lost(at: Place) -> bool:
    """Whether W has no part in the window's last micro-batch: its gradient is None there."""
    return not at.gradients[-1][:-1].any()


def without_lost(accumulator: Theta, at: Place) -> Theta:
    """W's sum is dropped, and counts in no norm."""
    if not lost(at):
        return accumulator
    return np.vstack([np.zeros_like(accumulator[:-1]), accumulator[-1:]])


def update_found(
    theta: Theta, gradient: Theta, state: State, numbers: Constants, at: Place
) -> tuple[Theta, State]:
    """W is filtered out and not updated at all; the count of updates is the optimizer's."""
    new, moved = loop.rule(theta, gradient, state, numbers, at)
    if not lost(at):
        return new, moved
    kept = {name: np.vstack([state[name][:-1], array[-1:]]) for name, array in moved.items()}
    return np.vstack([theta[:-1], new[-1:]]), kept


MISTAKE = Mistake(
    title="Keras discards a variable's window whose last gradient is None",
    explanation=(
        "With gradient_accumulation_steps, Keras filters gradients of None before it looks at its"
        " accumulators. At a boundary a variable that the last micro-batch did not use is filtered"
        " out, its accumulator is reset with all others, and what it held is gone. A None at an"
        " earlier micro-step counts as 0. Read in Keras 3.15.1, and measured with SGD at rate 1,"
        " K = 3 and gradients of 1: the variable is at -1 after 1, 1, 1; at -0.6667 after None, 1,"
        " 1 or 1, 1, 0; and at 0 after 1, 1, None, with 0 in the accumulator. A tape gives None for"
        " every variable that its branch did not use: experts, tasks in turn, conditional layers."
        " A loop of your own does it where it pairs its sums with the last gradients."
    ),
    signature=(
        "Only a variable that the last micro-batch of a window does not use is affected: it keeps"
        " its bits over that window, without decay and momentum, although earlier micro-batches"
        " had gradients for it; its state stays too, and the optimizer's count goes on. In other"
        " windows it is right. Keras warns that gradients do not exist."
    ),
    family="zeroing",
    frequency=3,
    severity=4,
    stages=replace(STAGES, normalise=without_lost, rule=update_found),
    look_alikes={
        "none-vs-zero-grad": (
            "a window in which only the last micro-batch leaves W out: right there, lost here"
        ),
        "leftover-dropped": "full windows: they are all right there",
        "zero-per-microbatch": (
            "a window whose micro-batches all use W: wrong there in every tensor, right here"
        ),
    },
    evidence=(
        (
            "https://github.com/tensorflow/tensorflow/issues/24849",
            "a tape's gradient is None for a variable that is not in the expression",
        ),
        (
            "https://github.com/google-deepmind/sonnet/issues/215",
            "not all variables are connected in each step: ask the tape for zeros",
        ),
        (
            "https://github.com/tensorflow/tensorflow/issues/37501",
            "the warning that gradients do not exist for some variables, and puzzling metrics",
        ),
    ),
    impossible={
        "pytorch": (
            ".grad holds the sum itself: backward() of a micro-batch that does not use W adds"
            " nothing to it and takes nothing away. It is None only if no micro-batch of the"
            " window used W, and then there is nothing to lose."
        ),
        "jax": (
            "jax.grad gives zeros, never None, for what the loss does not depend on, and adding"
            " zeros loses nothing. A None in a tree of gradients is another structure: adding it"
            " to the sums raises, in MultiSteps too; without sums Adam raises, and so does SGD, at"
            " the latest in apply_updates."
        ),
    },
    kind="library",
)
