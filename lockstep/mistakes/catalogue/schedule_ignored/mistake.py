"""The learning rate is constant, though there is a schedule."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place, rate_of
from lockstep.problem import Problem


def unscheduled(problem: Problem) -> Problem:
    """The optimizer's own learning rate in every update."""
    return replace(problem, schedule=None, learning_rates=None)


def first_rate(at: Place) -> Number:
    """The schedule's first learning rate, as a traced function keeps it."""
    return rate_of(at.problem, 0)


MISTAKE = Mistake(
    title="The learning rate is constant, though there is a schedule",
    explanation=(
        "A scheduler that is made and never stepped changes nothing, and says nothing; nor does a"
        " schedule in a configuration that no code reads. In optax and Keras it is the peak that"
        " went into the optimizer, and not the schedule. A rate that is looked up while jit or"
        " tf.function traces is looked up once: the first one stays."
    ),
    signature=(
        "Every update has the optimizer's own learning rate. With a warm-up from 0 the first"
        " update already differs: it moves, at the peak, where nothing should. Or every update has"
        " the schedule's first rate, and the second differs."
    ),
    family="schedule",
    frequency=3,
    severity=4,
    stages=replace(STAGES, settings=unscheduled),
    forms=(replace(STAGES, learning_rate=first_rate),),
    look_alikes={
        "sched-per-epoch": "a second epoch: the rate changes there",
        "sched-too-slow": "a warm-up: the first update does not move there",
    },
    evidence=(
        (
            "https://github.com/thu-ml/tianshou/issues/774",
            "the learning rate never changes: lr_scheduler.step() is missing",
        ),
        (
            "https://github.com/tumurzakov/AnimateDiff/issues/11",
            "the scheduler's count stays at its start",
        ),
        (
            "https://github.com/verl-project/verl/issues/418",
            "a warm-up style in the settings that no code reads",
        ),
    ),
)
