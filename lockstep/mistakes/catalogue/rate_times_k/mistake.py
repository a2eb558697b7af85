"""The learning rate is scaled with the accumulation steps."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES
from lockstep.problem import Problem


def scaled(problem: Problem) -> Problem:
    """All learning rates times K."""
    k, rates = problem.accumulation_steps, problem.learning_rates
    optimizer = replace(problem.optimizer, learning_rate=problem.optimizer.learning_rate * k)
    return replace(problem, optimizer=optimizer, learning_rates=rates and [r * k for r in rates])


MISTAKE = Mistake(
    title="The learning rate is multiplied by K",
    explanation=(
        "The linear scaling rule: a batch K times as large gets K times the learning rate. Some"
        " trainers apply it to the accumulation steps as well. It is a choice, not a mistake, as"
        " long as it is made once: not by the port and by the settings that it was given."
    ),
    signature=(
        "Every update is K times as large, from update 1 on, partial windows too, and all is right"
        " with K = 1. The gradients are right, and Adam does not hide it. Decoupled weight decay"
        " is K times as strong."
    ),
    family="schedule",
    frequency=2,
    severity=2,
    kind="policy",
    stages=replace(STAGES, settings=scaled),
    look_alikes={
        "no-divide": (
            "a partial window, ragged windows, or Adam: there that one is no factor K. Under SGD"
            " with equal and full windows the gradient, or the learning rate, tells them apart"
        ),
    },
    evidence=(
        (
            "https://github.com/open-mmlab/mmengine/issues/894",
            "should the rate scale with the accumulative counts? Only if nobody did it yet",
        ),
        (
            "https://github.com/lucidrains/audiolm-pytorch/issues/143",
            "should the rate be doubled if the accumulation steps are doubled?",
        ),
    ),
)
