"""The momentum is 1."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Place, Theta
from lockstep.oracle.rules import Constants, State
from lockstep.problem import Problem


def momentum_one(problem: Problem) -> Problem:
    """SGD with momentum 1, whatever was asked for."""
    if problem.optimizer.name != "sgd":
        return problem
    return replace(problem, optimizer=replace(problem.optimizer, momentum=1.0))


def never_decays(
    theta: Theta, gradient: Theta, state: State, numbers: Constants, at: Place
) -> tuple[Theta, State]:
    """The coefficient stands at the gradient, v + mu g, and not at the buffer."""
    settings = at.problem.optimizer
    if settings.name != "sgd" or not settings.momentum:
        return STAGES.rule(theta, gradient, state, numbers, at)
    gradient = gradient + theta * numbers["l2"]
    buffer = state["momentum_buffer"] + gradient * settings.momentum
    direction = gradient + buffer * settings.momentum if settings.nesterov else buffer
    return theta - direction * numbers["rate"], {"momentum_buffer": buffer}


MISTAKE = Mistake(
    title="Momentum is 1: the buffer adds up and never decays",
    explanation=(
        "A momentum of 1 - mu where mu was asked for, as some libraries count it, is 1 where there"
        " should be none. In another form the coefficient stands at the wrong term, v + mu g"
        " instead of mu v + g. Either way old gradients keep their full weight for ever."
    ),
    signature=(
        "Under SGD without momentum it is what a missing reset does, in every bit: update 1 is"
        " right, and update u has the sum of all gradients so far. With clipping, or with another"
        " optimizer, the two part. The gradients themselves are right, and the buffer grows."
    ),
    family="optimizer",
    frequency=1,
    severity=4,
    stages=replace(STAGES, settings=momentum_one),
    forms=(replace(STAGES, rule=never_decays),),
    look_alikes={
        "missing-zero-grad": (
            "the gradient: there it is the sum of all windows so far. From the parameters of plain"
            " SGD alone they cannot be told apart"
        ),
    },
    evidence=(
        (
            "https://github.com/ooples/AiDotNet/issues/2008",
            "the coefficient is on the wrong term, so the velocity never decays",
        ),
        (
            "https://github.com/YudeWang/SEAM/issues/21",
            "arguments in another order: the weight decay was taken for the momentum",
        ),
    ),
)
