"""AMSGrad takes the maximum of another second moment."""

from dataclasses import replace

import numpy as np

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Place, Theta, rule
from lockstep.oracle.rules import Constants, State, root

Step = tuple[Theta, State]


def of_corrected(
    theta: Theta, gradient: Theta, state: State, numbers: Constants, at: Place
) -> Step:
    """Keep the maximum of the corrected v, and do not correct that again."""
    plain, new = rule(theta, gradient, state, numbers, at)
    if not at.problem.optimizer.amsgrad:
        return plain, new
    corrected = new["exp_avg_sq"] * (numbers["unbias"] * numbers["unbias"])
    new["max_exp_avg_sq"] = np.maximum(state["max_exp_avg_sq"], corrected)
    direction = new["exp_avg"] / (root(new["max_exp_avg_sq"]) + numbers["eps"])
    return theta * numbers["decay"] - direction * numbers["step"], new


def uncorrected(theta: Theta, gradient: Theta, state: State, numbers: Constants, at: Place) -> Step:
    """Keep the maximum of v, and correct m alone."""
    if at.problem.optimizer.amsgrad:
        numbers = numbers | {"unbias": at.number(1)}
    return rule(theta, gradient, state, numbers, at)


MISTAKE = Mistake(
    title="AMSGrad takes the maximum of the bias-corrected second moment",
    explanation=(
        "PyTorch and Keras keep the maximum of the raw v and correct the bias of that. optax keeps"
        " the maximum of the corrected v; PyTorch's documentation described it so until the end of"
        " 2024, and ports follow it. With bias_correction_nu=False optax keeps the raw maximum as"
        " in the paper, and does not correct it at all."
    ),
    signature=(
        "Update 1 is right. The first to differ is the first for which a corrected v is smaller"
        " than an earlier one: with shrinking gradients update 2. An early corrected v is the"
        " average of few squares, and it never fades: for the same gradients no update is larger"
        " than it should be. Nothing differs without amsgrad. Never corrected, update 1 is 1 /"
        " sqrt(1 - beta2) times too large."
    ),
    family="optimizer",
    frequency=2,
    severity=2,
    stages=replace(STAGES, rule=of_corrected),
    forms=(replace(STAGES, rule=uncorrected),),
    look_alikes={
        "adam-eps-hat": "without amsgrad it shows there, and here it does not",
        "missing-bias-correction": "without amsgrad it shows there, and here it does not",
    },
    evidence=(
        (
            "https://github.com/google-deepmind/optax/issues/1389",
            "AMSGrad differs from PyTorch and TensorFlow, and yields slightly poorer results",
        ),
        (
            "https://github.com/google-deepmind/optax/pull/1423",
            "a flag, to align with the paper and with PyTorch and TensorFlow",
        ),
        (
            "https://github.com/pytorch/pytorch/issues/142323",
            "the code corrects after the maximum, the documentation says before",
        ),
    ),
    kind="library",
)
