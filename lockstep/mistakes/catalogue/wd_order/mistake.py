"""Decoupled weight decay acts after the update instead of before."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Place, Theta, rule
from lockstep.oracle.rules import Constants, State


def decay_last(
    theta: Theta, gradient: Theta, state: State, numbers: Constants, at: Place
) -> tuple[Theta, State]:
    """Shrink what the update has moved."""
    theta, state = rule(theta, gradient, state, numbers | {"decay": at.number(1)}, at)
    return theta * numbers["decay"], state


MISTAKE = Mistake(
    title="Decoupled weight decay acts after the update instead of before",
    explanation=(
        "By hand, the decay is a line after the call of the optimizer, and then it shrinks the"
        " update too. Long runs do not show it, as the end of one update is the beginning of"
        " the next; a comparison update by update does."
    ),
    signature=(
        "The parameters after update u are (theta - lr direction) (1 - lr wd) instead of theta (1"
        " - lr wd) - lr direction: off by lr^2 wd times the direction, in the first update"
        " already. Nothing differs where the gradient has been zero."
    ),
    family="decay",
    frequency=2,
    severity=1,
    stages=replace(STAGES, rule=decay_last),
    look_alikes={
        "wd-per-microstep": "parameters whose gradient is zero: this one is right there",
        "wd-not-times-lr": "parameters whose gradient is zero: this one is right there",
    },
    evidence=(
        (
            "https://github.com/bitsandbytes-foundation/bitsandbytes/issues/2010",
            "the backends decay in different orders",
        ),
        (
            "https://github.com/bitsandbytes-foundation/bitsandbytes/pull/2040",
            "the kernels had (p + update) (1 - lr wd)",
        ),
        (
            "https://github.com/kyleliang919/C-Optim/issues/3",
            "weight decay acts on the updated weights; torch applies it before",
        ),
        (
            "https://github.com/stanford-cs336/assignment1-basics/issues/54",
            "pseudocode that decays the updated parameters; the tests pass with both",
        ),
    ),
)
