"""Gradients are cleared between the backward pass and the update."""

from dataclasses import replace

import numpy as np

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Place, Theta
from lockstep.oracle.rules import Constants, State


def skip_all(
    theta: Theta, gradient: Theta, state: State, numbers: Constants, at: Place
) -> tuple[Theta, State]:
    """Leave parameters and state as they are, since every gradient is None."""
    return theta, state


def emptied(gradient: Theta, at: Place) -> Theta:
    """Zeros where the gradient was."""
    return np.zeros_like(gradient) + at.number(0)


MISTAKE = Mistake(
    title="The accumulator is reset after the last backward pass, before the update",
    explanation=(
        "backward(); zero_grad(); step(): the update finds no gradient. PyTorch's zero_grad() sets"
        " .grad to None, and an optimizer passes over a tensor without a gradient: no decay, no"
        " momentum, no state, no error. With set_to_none=False, and with accumulators of your own"
        " in TensorFlow and JAX, the gradient is zero, and the update is taken: decay and momentum"
        " act on it. The three calls are often copied as a block, and their order is not enforced."
    ),
    signature=(
        "No gradient enters any update: the coefficient matrix is zero. With None every parameter"
        " keeps its bits, and the optimizer's state stays empty although the loop counts updates."
        " With zeros, momentum and moments stay 0 unless weight decay feeds them, and the"
        " parameters shrink by weight decay alone."
    ),
    family="zeroing",
    frequency=2,
    severity=5,
    stages=replace(STAGES, rule=skip_all),
    forms=(replace(STAGES, normalise=emptied), replace(STAGES, clip=emptied)),
    look_alikes={
        "never-updates": (
            "K = 1: there never-updates takes its updates, since each micro-step is a boundary,"
            " and this one does not"
        ),
        "zero-only-if-updated": (
            "a run without a window that is not finite: only this one stands still"
        ),
        "params-not-in-optimizer": "W, which moves there and not here",
        "zero-gradients-applied": (
            "the coefficient matrix: the boundary's own row is right there, and zero here"
        ),
    },
    evidence=(
        (
            "https://github.com/patrickloeber/pytorchTutorial/issues/19",
            "how could the optimizer update without a gradient, if zero_grad() comes before it?",
        ),
        (
            "https://github.com/milesial/Pytorch-UNet/issues/378",
            "any order does, as long as the gradients are zero before the backward pass",
        ),
        (
            "https://github.com/Han-Jia/UNICORN-MAML/issues/7",
            "asked why there is a zero_grad() after the backward pass; there, no update follows",
        ),
        (
            "https://github.com/pytorch/tutorials/pull/2800",
            "both right orders give the same numbers; which one to teach is disputed",
        ),
        (
            "https://github.com/huggingface/accelerate/issues/1422",
            "zero_grad at the wrong micro-step prevents the model from training at all",
        ),
        (
            "https://docs.pytorch.org/docs/stable/generated/torch.optim.Optimizer.zero_grad.html",
            "with a gradient of 0 an optimizer takes the step, with None it skips it altogether",
        ),
    ),
)
