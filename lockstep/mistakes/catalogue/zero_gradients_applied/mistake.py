"""The optimizer is called in every micro-step, with zero gradients before the boundary."""

from dataclasses import replace

import numpy as np

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place, Theta, boundary, rate_of


def micro_step(at: Place) -> bool:
    """The optimizer runs in every micro-step."""
    return True


def add(accumulator: Theta, gradient: Theta, at: Place) -> Theta:
    """Add without the loss scale, which is one of a window, not of a micro-step."""
    return accumulator + gradient * at.number(1 / at.scale)


def hide(accumulator: Theta, at: Place) -> Theta:
    """Zeros, until the window is full."""
    return accumulator * at.number(at.scale) if boundary(at) else np.zeros_like(accumulator)


def keep(accumulator: Theta, at: Place) -> Theta:
    """Reset after the boundary only."""
    return np.zeros_like(accumulator) if boundary(at) else accumulator


def last_rate(at: Place) -> Number:
    """The learning rate of as many updates as the optimizer has taken; at the end, the last."""
    given = at.problem.learning_rates
    count = at.problem.updates if given is None else len(given)
    return rate_of(at.problem, min(at.update, count - 1))


def own_rate(at: Place) -> Number:
    """The learning rate of the window, from a schedule that counts boundaries."""
    windows = at.kept.setdefault("windows", 0)
    at.kept["windows"] += boundary(at)
    return rate_of(at.problem, windows)


ZEROS = replace(
    STAGES, boundary=micro_step, accumulate=add, normalise=hide, reset=keep, shows=boundary
)

MISTAKE = Mistake(
    title="The optimizer is called in every micro-step, with zeros before the boundary",
    explanation=(
        "A zero gradient is not the same as no update: momentum goes on moving the parameters,"
        " weight decay shrinks them, moments fade, and t and the schedule count. It comes from"
        " loops that must not branch, under jit, tf.function or a distribution strategy, and so"
        " multiply the gradients by 0 or 1 instead, and from PyTorch loops with sums of their own"
        " that zero .grad (not to None) and call step() in every micro-step."
    ),
    signature=(
        "Plain SGD at a constant learning rate is right, and so is K = 1. With momentum the"
        " parameters move in every micro-step, and the buffer fades by mu^K an update; decay acts"
        " K times an update; Adam's t is K at the first boundary, where m and v have seen one"
        " gradient: with bias correction, update 1 is too small or too large by"
        " (1 - beta1) / (1 - beta1^K) sqrt((1 - beta2^K) / (1 - beta2))."
    ),
    family="optimizer",
    frequency=3,
    severity=4,
    stages=ZEROS,
    forms=(replace(ZEROS, learning_rate=last_rate), replace(ZEROS, learning_rate=own_rate)),
    look_alikes={
        "wd-per-microstep": "momentum without decay, which that one gets right",
        "bias-correction-per-microstep": "SGD with momentum, which that one gets right",
        "sched-per-microstep": "momentum at a constant learning rate, which that one gets right",
        "step-every-microbatch": "plain SGD, which that one gets wrong",
        "apply-every": "plain SGD with clipping, which that one gets wrong",
        "none-vs-zero-grad": "K = 1 and a parameter with no gradient, which that one gets wrong",
    },
    evidence=(
        (
            "https://github.com/andreped/GradientAccumulator/issues/132",
            "momentum will be updated with zero gradients: a serious problem",
        ),
        (
            "https://github.com/borisdayma/dalle-mini/pull/122",
            "apply_every calls the optimizer with no gradient, which could be an issue",
        ),
        (
            "https://github.com/megvii-model/DetNAS/issues/3",
            "gradients are set to None, since zeros would still move parameters",
        ),
    ),
)
