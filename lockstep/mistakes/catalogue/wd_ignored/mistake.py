"""Weight decay is not applied."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES
from lockstep.problem import Problem


def without_decay(problem: Problem) -> Problem:
    """No weight decay."""
    return replace(problem, optimizer=replace(problem.optimizer, weight_decay=0.0))


def default_of(library: Mapping[str, float]) -> Callable[[Problem], Problem]:
    """A library's defaults, by the optimizer's name: those that are not there have none."""

    def settings(problem: Problem) -> Problem:
        """What an optimizer has that was given no weight decay: it acts on all parameters."""
        weight_decay = library.get(problem.optimizer.name, 0.0)
        optimizer = replace(problem.optimizer, weight_decay=weight_decay)
        return replace(problem, optimizer=optimizer, decay_bias=True)

    return settings


def coupled_alone(problem: Problem) -> Problem:
    """No decoupled weight decay."""
    return without_decay(problem) if problem.optimizer.decoupled else problem


TORCH, KERAS, OPTAX = {"adamw": 1e-2}, {"adamw": 4e-3}, {"adamw": 1e-4, "lion": 1e-3}

MISTAKE = Mistake(
    title="Weight decay is not applied, or the library's default is",
    explanation=(
        "The setting is read, and not handed to the optimizer: nothing complains. Adam, SGD and"
        " the others then have none. AdamW has its library's default, which is 0.01 in PyTorch,"
        " 0.004 in Keras and 0.0001 in optax (optax.lion 0.001), whatever was asked for."
    ),
    signature=(
        "Parameters whose gradient is zero stay where they are, or under AdamW, and under optax's"
        " Lion, shrink by lr times the library's default. Nothing differs without weight decay."
    ),
    family="decay",
    frequency=3,
    severity=3,
    stages=replace(STAGES, settings=without_decay),
    forms=tuple(
        replace(STAGES, settings=settings)
        for settings in (default_of(TORCH), default_of(KERAS), default_of(OPTAX), coupled_alone)
    ),
    look_alikes={
        "wd-on-bias": "a problem that decays W alone: W is right there in the first update",
        "l2-vs-decoupled": "parameters whose gradient is zero: they move there",
    },
    evidence=(
        (
            "https://github.com/salesforce/ALPRO/issues/10",
            "weight_decay is a setting, and is not passed to the optimizer",
        ),
        (
            "https://github.com/gregorbachmann/Next-Token-Failures/issues/5",
            "the argument does not reach AdamW, where zero is hard-coded",
        ),
        (
            "https://github.com/rwth-i6/returnn/issues/1439",
            "a parameter's own weight decay is ignored in the PyTorch engine",
        ),
    ),
)
