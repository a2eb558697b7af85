"""One of the parameters is not in the optimizer."""

from dataclasses import replace

import numpy as np

from lockstep.mistakes import Mistake
from lockstep.oracle import loop
from lockstep.oracle.loop import STAGES, Place, Theta
from lockstep.oracle.rules import Constants, State


def update_weights(
    theta: Theta, gradient: Theta, state: State, numbers: Constants, at: Place
) -> tuple[Theta, State]:
    """Update W; b and its state stay as they are."""
    at.kept["clipped"] = gradient
    new, moved = loop.rule(theta, gradient, state, numbers, at)
    kept = {name: np.vstack([array[:-1], state[name][-1:]]) for name, array in moved.items()}
    return np.vstack([new[:-1], theta[-1:]]), kept


def reset_weights(accumulator: Theta, at: Place) -> Theta:
    """The optimizer resets what it has, W's gradient; b's goes on into the next window."""
    return np.vstack([np.zeros_like(accumulator[:-1]), accumulator[-1:]])


def reset_weights_in_place(accumulator: Theta, at: Place) -> Theta:
    """The same of an accumulator that was unscaled and clipped in place, as .grad is."""
    return reset_weights(at.kept["clipped"] if at.taken else accumulator, at)


MISTAKE = Mistake(
    title="A parameter is not in the optimizer, and never moves",
    explanation=(
        "The gradient is computed and nobody applies it. The parameter was created, replaced or"
        " moved after the optimizer was made, or belongs to none of the groups that the optimizer"
        " was given: matrices with decay, and the others forgotten. PyTorch says nothing. Keras"
        " raises for a variable that is new to it, and so does optax where it keeps state, but not"
        " where zip() stops at the shorter list, or a mask or a label freezes the parameter."
        " (optax.masked alone leaves the other gradients as they are, and adds them.) In PyTorch"
        " optimizer.zero_grad() does not know the tensor either, so that its .grad grows."
    ),
    signature=(
        "One tensor, here b, has the same bits after every update while its gradient is not zero;"
        " the others are right until they feel it. Its gradient still counts in the global norm, so"
        " that where clipping acts all other updates are too small; where its .grad is not reset,"
        " more so as it grows."
    ),
    family="optimizer",
    frequency=3,
    severity=4,
    stages=replace(STAGES, rule=update_weights),
    forms=(
        replace(STAGES, rule=update_weights, reset=reset_weights),
        replace(STAGES, rule=update_weights, reset=reset_weights_in_place),
    ),
    look_alikes={
        "zero-wrong-object": "b itself, which moves there and stands still here",
        "frozen-with-stale-grad": "b after update 1: it goes on moving there",
        "zero-before-update": "W, which moves here and not there",
        "wd-on-bias": "b, which moves there; and a run without weight decay is right there",
    },
    evidence=(
        (
            "https://github.com/ACEsuit/mace/issues/525",
            "parameters do not get trained",
        ),
        (
            "https://github.com/ACEsuit/mace/pull/1529",
            "a parameter that no group claims would never receive updates; a guard and tests",
        ),
        (
            "https://github.com/facebookresearch/spartan/issues/1",
            "an optimizer made before the modules are replaced finds gradients of None",
        ),
        (
            "https://github.com/ContinualAI/avalanche/pull/1609",
            "parameters that are added later, and how the optimizer gets to know them",
        ),
    ),
)
