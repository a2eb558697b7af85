"""Adagrad follows another library."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Place, Theta, rule
from lockstep.oracle.rules import Constants, State, sqrt
from lockstep.problem import Problem


def eps_inside(
    theta: Theta, gradient: Theta, state: State, numbers: Constants, at: Place
) -> tuple[Theta, State]:
    """Divide by sqrt(sum + eps)."""
    plain, new = rule(theta, gradient, state, numbers, at)
    if at.problem.optimizer.name != "adagrad":
        return plain, new
    gradient = gradient + theta * numbers["l2"]
    direction = gradient / sqrt(new["sum"] + numbers["eps"])
    return theta - direction * numbers["decayed_rate"], new


def default_start(problem: Problem) -> Problem:
    """Start the sum at 0.1, the default of Keras and optax, instead of the setting."""
    if problem.optimizer.name != "adagrad":
        return problem
    start = replace(problem.optimizer, initial_accumulator_value=0.1)
    return replace(problem, optimizer=start)


MISTAKE = Mistake(
    title="Adagrad has eps inside the root, or starts its sum at 0.1",
    explanation=(
        "PyTorch divides by sqrt(sum) + eps, and its sum starts at 0. Keras and optax divide by"
        " sqrt(sum + eps), and their sum starts at 0.1 unless it is set. Code that is ported"
        " without naming the initial accumulator value takes other first updates."
    ),
    signature=(
        "Update 1 is the first to differ, and the most, since the sum grows. From a sum of 0"
        " update 1 is the whole learning rate, and from 0.1 it is g / sqrt(g^2 + 0.1) of it: 0.30"
        " for g = 0.1. eps inside works like an eps of 0 and an initial value that is larger by"
        " eps. Nothing differs for other optimizers."
    ),
    family="optimizer",
    frequency=2,
    severity=2,
    stages=replace(STAGES, rule=eps_inside),
    forms=(replace(STAGES, settings=default_start),),
    look_alikes={
        "eps-default": "one other eps outside the root explains all parameters; Adam differs too",
        "rmsprop-variant": "the same in RMSprop",
    },
    evidence=(
        (
            "https://github.com/keras-team/keras/issues/17391",
            "Adagrad and RMSprop: epsilon is used inconsistently with Torch",
        ),
        (
            "https://github.com/pytorch/pytorch/pull/6616",
            "PyTorch gets the initial value: TensorFlow's Adagrad was needed for a paper",
        ),
        (
            "https://github.com/OpenNMT/OpenNMT-py/pull/408",
            "TensorFlow allows for an initial accumulator value; so does this, for a port",
        ),
        (
            "https://tensorflow.org/versions/r2.10/api_docs/python/tf/keras/optimizers/Adagrad",
            "initial_accumulator_value=0.1, epsilon=1e-07",
        ),
    ),
    kind="library",
)
