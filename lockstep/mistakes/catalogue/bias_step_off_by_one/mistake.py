"""Adam's bias correction does not start with t = 1."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from lockstep.mistakes import Mistake
from lockstep.oracle import rules
from lockstep.oracle.loop import STAGES, Number, Place, Theta, constants, rule, take_update
from lockstep.oracle.rules import Constants, State


def counted_as(rate: Number, at: Place, update: int) -> Constants:
    """All numbers of an update that is counted as another, from 0."""
    return rules.constants(at.problem.optimizer, rate, update, at.decays, at.dtype)


def one_too_many(rate: Number, at: Place) -> Constants:
    """Correct the bias of update t as if it were t + 1."""
    numbers = constants(rate, at)
    if at.problem.optimizer.name in ("adam", "adamw"):
        later = counted_as(rate, at, at.update + 1)
        numbers |= {name: later[name] for name in ("unbias", "step")}
    return numbers


def counted_by_parameter(rate: Number, at: Place) -> Constants:
    """Count W and b as one update each: W's t is 2u - 1, and b's 2u."""
    numbers = constants(rate, at)
    if at.problem.optimizer.name in ("adam", "adamw"):
        first, second = (counted_as(rate, at, 2 * at.update + i) for i in (0, 1))
        for name in ("unbias", "step"):
            rows = [[first[name]]] * len(at.problem.W) + [[second[name]]]
            numbers[name] = np.array(rows, dtype=at.dtype)
    return numbers


def one_later(rate: Number, at: Place) -> Constants:
    """Count the update that made the state, whatever the optimizer counts for."""
    return counted_as(rate, at, at.update + 1)


def made_by_a_dummy(theta: Theta, state: State, at: Place, take: Callable[..., Any]) -> State:
    """What an update with zeros, at a rate of 0, leaves of the state before the first."""
    if at.update:
        return state
    _, made = take(theta, theta - theta, state, constants(at.number(0), at), at)
    return made


def once(theta: Theta, gradient: Theta, state: State, at: Place) -> tuple[Theta, State]:
    """Take such an update first, once in a run, by whatever rule."""
    return take_update(theta, gradient, made_by_a_dummy(theta, state, at, at.stages.rule), at)


def anew(
    theta: Theta, gradient: Theta, state: State, numbers: Constants, at: Place
) -> tuple[Theta, State]:
    """The same for every state that is made, where there are several."""
    return rule(theta, gradient, made_by_a_dummy(theta, state, at, rule), numbers, at)


MISTAKE = Mistake(
    title="Adam's bias correction does not start with t = 1",
    explanation=(
        "The count that corrects the bias runs ahead of the updates. It is increased twice, or"
        " once for each parameter, since the rest of the rule stands in the loop over parameters."
        " Or a first update with zero gradients and a rate of 0 was taken, so that the optimizer"
        " makes its state: get_optimizer_state_dict of PyTorch's distributed checkpoints does"
        " that. It counts, and with coupled weight decay it leaves moments too."
    ),
    signature=(
        "Update 1 is the first to differ, and the most: with t = 2 it is sqrt(1 + beta2) / (1 +"
        " beta1) of what it should be, 0.744 for 0.9 and 0.999. Where eps is small the factor is"
        " the same for all parameters, and it goes to 1 with the updates. Counted by parameter, W"
        " is right in update 1 and b is not. m and v are right, unless a dummy update met coupled"
        " decay. SGD is right, unless the dummy update made its momentum buffer."
    ),
    family="optimizer",
    frequency=3,
    severity=3,
    stages=replace(STAGES, constants=one_too_many),
    forms=(
        replace(STAGES, constants=counted_by_parameter),
        replace(STAGES, constants=one_later, take_update=once),
        replace(STAGES, constants=one_later, rule=anew),
    ),
    look_alikes={
        "bias-correction-per-microstep": "with K = 1 it is right",
        "frozen-step-counter": "update 1 is right there, and the factor does not go to 1",
        "missing-bias-correction": "update 1 is 3.16 times too large there, for 0.9 and 0.999",
        "sched-off-by-one": "with a constant learning rate it is right",
    },
    evidence=(
        (
            "https://github.com/pytorch/torchtitan/pull/4382",
            "a zero-gradient, zero-LR step makes the state; the first real update uses step 2",
        ),
        (
            "https://github.com/NVIDIA/Megatron-LM/pull/5976",
            "leaving the synthetic step counted: a 1.34x under-update, and moments from L2 decay",
        ),
        (
            "https://github.com/flashlight/flashlight/issues/143",
            "the count is increased in the loop over parameters",
        ),
        (
            "https://github.com/DiffSharp/DiffSharp/issues/292",
            "it should only be incremented once per iteration, not once per parameter",
        ),
        (
            "https://github.com/cs231n/cs231n.github.io/issues/179",
            "an assignment starts at t = 1 and expects t = 2 in the first update",
        ),
        (
            "https://github.com/deepspeedai/DeepSpeed/pull/5104",
            "ZeRO calls step() on initialization, which increments the counter",
        ),
    ),
)
