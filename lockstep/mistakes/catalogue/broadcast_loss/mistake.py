"""Predictions and targets broadcast against each other."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Theta, error, predict
from lockstep.problem import Array


def error_to_all(theta: Theta, x: Array, y: Array) -> Array:
    """Each prediction's errors to all targets, added up."""
    return len(y) * predict(theta, x) - y.sum(axis=0)


def error_to_mean(theta: Theta, x: Array, y: Array) -> Array:
    """The same as the mean has it: each prediction's error to the mean of the targets."""
    return predict(theta, x) - y.sum(axis=0) / len(y)


def error_to_all_of_one(theta: Theta, x: Array, y: Array) -> Array:
    """The first, where squeezing leaves no axis: with one output alone."""
    return error_to_all(theta, x, y) if y.shape[1] == 1 else error(theta, x, y)


def error_to_mean_of_one(theta: Theta, x: Array, y: Array) -> Array:
    """The second, with one output alone."""
    return error_to_mean(theta, x, y) if y.shape[1] == 1 else error(theta, x, y)


MISTAKE = Mistake(
    title="Shapes (N, 1) and (N,) broadcast: each prediction meets all targets",
    explanation=(
        "A column minus a row is a square: N predictions and N targets give N times N errors. An"
        " axis was squeezed on one side, or added on the other. The libraries' own losses know:"
        " optax's raises, Keras's squeezes, PyTorch's warns. A minus sign of your own says nothing"
        " in any of the three, and whatever reduces the errors to a scalar hides their shape."
    ),
    signature=(
        "The gradient knows the targets by their mean over the micro-batch alone: the same targets"
        " in another order give the same update, and the model learns to predict the mean. Summed,"
        " it is N times the gradient of that. Micro-batches of one example are right. In the"
        " coefficient matrix, whose targets have the mean 0, nothing moves."
    ),
    family="model",
    frequency=3,
    severity=5,
    stages=replace(STAGES, error=error_to_all),
    forms=(
        replace(STAGES, error=error_to_mean),
        replace(STAGES, error=error_to_all_of_one),
        replace(STAGES, error=error_to_mean_of_one),
    ),
    look_alikes={
        "never-updates": "targets whose mean is not 0: here the parameters move",
        "vector-loss-summed": "the targets in another order: there the update changes",
    },
    evidence=(
        (
            "https://github.com/pytorch/pytorch/issues/16045",
            "linear regression with [n] and [n, 1] misses the solution, and no error is raised",
        ),
        (
            "https://github.com/pytorch/pytorch/issues/19699",
            "MSELoss of (N, 1) and (N) is another number",
        ),
        (
            "https://github.com/pytorch/pytorch/issues/2973",
            "hard to find when the loss is reduced to a scalar",
        ),
        (
            "https://github.com/pytorch/pytorch/issues/19991",
            "a warning since 1.1, for the loss functions",
        ),
        (
            "https://github.com/IntelLabs/matsciml/pull/347",
            "labels with an extra axis: very different from the intention",
        ),
        (
            "https://github.com/deepset-ai/FARM/issues/229",
            "the logits were squeezed, and did not match the labels",
        ),
    ),
)
