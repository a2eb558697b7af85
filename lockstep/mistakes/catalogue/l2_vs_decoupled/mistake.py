"""Coupled weight decay where decoupled is asked for, or the other way."""

from dataclasses import replace

import numpy as np

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Place, Theta, rule
from lockstep.oracle.rules import Constants, State
from lockstep.problem import Problem


def adam_for_adamw(problem: Problem) -> Problem:
    """Adam's weight_decay where AdamW's is asked for."""
    if problem.optimizer.name != "adamw":
        return problem
    return replace(problem, optimizer=replace(problem.optimizer, name="adam"))


def adamw_for_adam(problem: Problem) -> Problem:
    """AdamW where Adam's weight_decay is asked for, as Keras's Adam has it."""
    if problem.optimizer.name != "adam":
        return problem
    return replace(problem, optimizer=replace(problem.optimizer, name="adamw"))


def coupled(
    theta: Theta, gradient: Theta, state: State, numbers: Constants, at: Place
) -> tuple[Theta, State]:
    """Decay in the gradient, Lion's too."""
    if at.problem.optimizer.decoupled:
        gradient = gradient + theta * decay_of(at)
        numbers = numbers | {"decay": at.number(1)}
    return rule(theta, gradient, state, numbers, at)


def decoupled(
    theta: Theta, gradient: Theta, state: State, numbers: Constants, at: Place
) -> tuple[Theta, State]:
    """Decay that shrinks the parameters, whatever the optimizer."""
    if not at.problem.optimizer.decoupled:
        theta = theta * (1 - numbers["l2"] * numbers["rate"])
        numbers = numbers | {"l2": at.number(0)}
    return rule(theta, gradient, state, numbers, at)


def decay_of(at: Place) -> Theta:
    """Weight decay for each row of W above b."""
    decay = at.number(at.problem.optimizer.weight_decay)
    return np.array([[decay if each else at.number(0)] for each in at.decays], dtype=at.dtype)


MISTAKE = Mistake(
    title="Coupled weight decay where decoupled is asked for, or the other way",
    explanation=(
        "Adam(weight_decay=...) is another optimizer in each library: in PyTorch the decay is"
        " added to the gradient, and Adam divides it by its root; in Keras it shrinks the"
        " parameters, under every optimizer, SGD too, so that its Adam is AdamW. In optax the"
        " place of add_decayed_weights in the chain decides: before the direction it is coupled."
    ),
    signature=(
        "Nothing differs without weight decay, nor under plain SGD, where both are the same."
        " Where gradients are zero, a decoupled decay shrinks every parameter by lr wd of itself;"
        " a coupled one under Adam moves them all by about lr, whatever their size."
    ),
    family="decay",
    frequency=4,
    severity=3,
    stages=replace(STAGES, settings=adam_for_adamw),
    forms=(
        replace(STAGES, settings=adamw_for_adam),
        replace(STAGES, rule=coupled),
        replace(STAGES, rule=decoupled),
    ),
    look_alikes={
        "wd-ignored": "parameters whose gradient is zero: there they stay",
        "wd-not-times-lr": "a coupled decay: that one is right there",
    },
    evidence=(
        (
            "https://github.com/google-deepmind/optax/issues/417",
            "PyTorch's Adam with weight decay is not adamw; a port could not reproduce it",
        ),
        (
            "https://github.com/google-deepmind/optax/issues/494",
            "where add_decayed_weights has to stand in the chain",
        ),
        (
            "https://github.com/keras-team/keras/issues/19051",
            "doubts about which of the two Keras's AdamW is",
        ),
        (
            "https://github.com/pytorch/pytorch/pull/41676",
            "a note for the documentation: Adam's decay is L2, not decoupled",
        ),
        (
            "https://github.com/facebookresearch/bitsandbytes/issues/10",
            "AdamW was used when Adam got a weight decay; unclear, so an alias",
        ),
    ),
)
