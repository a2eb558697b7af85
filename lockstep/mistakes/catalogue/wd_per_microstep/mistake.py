"""Weight decay acts once a micro-batch."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import (
    STAGES,
    Number,
    Place,
    Theta,
    boundary,
    constants,
    reset,
    take_update,
    to_number,
)
from lockstep.oracle.rules import Constants, State
from lockstep.problem import Problem


def times_k(problem: Problem) -> Problem:
    """K times the weight decay."""
    weight_decay = problem.accumulation_steps * problem.optimizer.weight_decay
    return replace(problem, optimizer=replace(problem.optimizer, weight_decay=weight_decay))


def once_a_micro_batch(rate: Number, at: Place) -> Constants:
    """Coupled decay added, and decoupled decay taken, for every micro-batch of the window."""
    numbers, n = constants(rate, at), at.window_length
    return numbers | {"l2": numbers["l2"] * n, "decay": numbers["decay"] ** n}


def every_micro_step(at: Place) -> bool:
    """Whether parameters change: by an update, or by decoupled decay."""
    settings = at.problem.optimizer
    return boundary(at) or (settings.decoupled and settings.weight_decay > 0)


def shrink_or_update(theta: Theta, gradient: Theta, state: State, at: Place) -> tuple[Theta, State]:
    """Within a window decay alone, which the next gradients see."""
    if boundary(at):
        return take_update(theta, gradient, state, at)
    rate = to_number(at.number, at.stages.learning_rate(at), at.problem)
    numbers = at.stages.constants(rate, at)
    at.update -= 1  # it is none
    return theta * numbers["decay"], state


def reset_at_boundary(accumulator: Theta, at: Place) -> Theta:
    """Keep what is accumulated until the window ends."""
    return reset(accumulator, at) if boundary(at) else accumulator


MISTAKE = Mistake(
    title="Weight decay acts once a micro-batch",
    explanation=(
        "The loss of a micro-batch is divided by K, and a penalty or a decay next to it is not:"
        " every micro-batch adds all of it. An optimizer that is called every micro-step and"
        " decays first does the same, as Keras's did before July 2024; so does a weight decay"
        " that was multiplied by K to keep up with the larger batch."
    ),
    signature=(
        "Parameters whose gradient is zero shrink by K lr wd in an update, or by 1 - (1 - lr"
        " wd)^K, instead of lr wd. Where they shrink micro-batch by micro-batch, the window's"
        " later gradients are those of shrunk parameters. Nothing differs with K = 1 or without"
        " weight decay."
    ),
    family="decay",
    frequency=3,
    severity=3,
    stages=replace(STAGES, settings=times_k),
    forms=(
        replace(STAGES, constants=once_a_micro_batch),
        replace(
            STAGES,
            boundary=every_micro_step,
            take_update=shrink_or_update,
            reset=reset_at_boundary,
            shows=boundary,
        ),
    ),
    look_alikes={
        "wd-not-times-lr": "K = 1: this one is right there",
        "wd-order": "K = 1: this one is right there",
        "l2-vs-decoupled": "K = 1: this one is right there",
    },
    evidence=(
        (
            "https://github.com/keras-team/keras/issues/19990",
            "decay in every micro-step; right if it is divided by K",
        ),
        (
            "https://github.com/keras-team/keras/pull/19998",
            "decay and clipping now only before the update",
        ),
    ),
)
