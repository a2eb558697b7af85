"""The update has the wrong sign."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place, Theta, constants, rule
from lockstep.oracle.rules import Constants, State


def ascend(rate: Number, at: Place) -> Constants:
    """Use the negative learning rate: the whole update is added, its weight decay too."""
    return constants(-rate, at)


def ascend_and_decay(rate: Number, at: Place) -> Constants:
    """The same, while decoupled decay still shrinks the parameters."""
    return constants(-rate, at) | {"decay": constants(rate, at)["decay"]}


def negate(
    theta: Theta, gradient: Theta, state: State, numbers: Constants, at: Place
) -> tuple[Theta, State]:
    """Give the rule the negative gradient: the parameters still decay."""
    return rule(theta, -gradient, state, numbers, at)


def negated(accumulator: Theta, at: Place) -> Theta:
    """The gradient itself has the wrong sign."""
    return -accumulator


MISTAKE = Mistake(
    title="The update has the wrong sign",
    explanation=(
        "Gradient ascent. optax.apply_updates adds, so that the sign is the business of the chain:"
        " scale_by_learning_rate and scale(-lr) have it, scale_by_schedule has not. Elsewhere it"
        " is a loss with its sign, a score that was meant to be maximised, or maximize=True left"
        " over. Where the gradient has the wrong sign, weight decay keeps its own."
    ),
    signature=(
        "Update 1 has the right size in every coordinate and the opposite sign, whatever the"
        " optimizer, unless there is weight decay. The loss rises from the start."
    ),
    family="optimizer",
    frequency=3,
    severity=5,
    stages=replace(STAGES, constants=ascend),
    forms=(
        replace(STAGES, rule=negate),
        replace(STAGES, normalise=negated),
        replace(STAGES, constants=ascend_and_decay),
    ),
    evidence=(
        (
            "https://github.com/FluxML/Flux.jl/pull/1290",
            "update! subtracts: the manual's update!(p, -lr * g) would increase the loss",
        ),
        (
            "https://github.com/torch/optim/pull/52",
            "found that only a plus works: the objective was one to maximise",
        ),
        (
            "https://github.com/google-deepmind/optax/pull/1128",
            "the sign of the update was wrong in the documentation of NAdam",
        ),
        (
            "https://github.com/kozistr/pytorch_optimizer/pull/528",
            "maximize negated the gradient twice, and descended",
        ),
        (
            "https://github.com/pytorch/pytorch/issues/1871",
            "weight + learning_rate * gradient in a tutorial",
        ),
    ),
)
