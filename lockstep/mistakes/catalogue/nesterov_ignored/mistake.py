"""Nesterov's momentum is asked for, and plain momentum is taken."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES
from lockstep.problem import Problem


def plain(problem: Problem) -> Problem:
    """The problem without Nesterov's momentum."""
    return replace(problem, optimizer=replace(problem.optimizer, nesterov=False))


MISTAKE = Mistake(
    title="Plain momentum where Nesterov's is asked for",
    explanation=(
        "The flag gets lost between the configuration and the rule: its default is False in all"
        " three libraries, and some optimizers accept it and never read it. Or the look-ahead"
        " g + mu v takes v as it was before the update, which is plain momentum."
    ),
    signature=(
        "Update 1 is 1 / (1 + mu) of what it should be: lr g instead of lr (1 + mu) g. Later ones"
        " differ less. Without the flag nothing differs."
    ),
    family="optimizer",
    frequency=3,
    severity=2,
    stages=replace(STAGES, settings=plain),
    look_alikes={
        "momentum-ema": "plain momentum, which that one gets wrong",
        "momentum-lr-placement": "a constant learning rate, at which that one is right",
    },
    evidence=(
        (
            "https://github.com/bitsandbytes-foundation/bitsandbytes/pull/2085",
            "six classes accept nesterov and never read it: in every bit plain momentum",
        ),
        (
            "https://github.com/ooples/AiDotNet.Tensors/pull/949",
            "a hardcoded false at both call sites: classical momentum, with no error",
        ),
    ),
)
