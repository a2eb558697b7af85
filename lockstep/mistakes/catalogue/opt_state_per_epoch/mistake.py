"""The optimizer is made anew in every epoch."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place, Theta, rate_of, take_update
from lockstep.oracle.rules import State


def restart(theta: Theta, gradient: Theta, state: State, at: Place) -> tuple[Theta, State]:
    """Take an update as if the run had begun with its epoch."""
    fresh = at.kept.setdefault("fresh", state)
    if at.kept.get("epoch") != at.epoch:
        before = at.epoch * at.micro_steps
        at.kept |= {"epoch": at.epoch, "start": at.update, "micro-steps before": before}
        state = fresh
    counted = replace(at, update=at.update - at.kept["start"])
    taken = take_update(theta, gradient, state, counted)
    at.rate = counted.rate
    return taken


def own_rate(at: Place) -> Number:
    """The learning rate of the run's update after all, from a schedule that goes on."""
    return rate_of(at.problem, at.kept["start"] + at.update)


MISTAKE = Mistake(
    title="The optimizer is made anew in every epoch",
    explanation=(
        "State and count restart with every epoch, because the function that trains one epoch"
        " makes its own optimizer, calls optimizer.init, or compiles its Keras model again. A"
        " schedule that the optimizer counts restarts too, with its warm-up."
    ),
    signature=(
        "The first epoch is right, and the first update of the second is the first to differ: it"
        " has no momentum, or Adam's size lr in every coordinate. Plain SGD at a constant learning"
        " rate does not show it, nor does a run of one epoch. Adam's second moment is young in"
        " every epoch, so that each begins with the largest updates."
    ),
    family="optimizer",
    frequency=3,
    severity=3,
    stages=replace(STAGES, take_update=restart),
    forms=(replace(STAGES, take_update=restart, learning_rate=own_rate),),
    look_alikes={
        "opt-state-dropped": "the second update, which that one gets wrong",
        "sched-per-epoch": "momentum at a constant learning rate, which that one gets right",
        "zero-once-per-epoch": "plain SGD at a constant learning rate, which that one gets wrong",
    },
    evidence=(
        (
            "https://github.com/alan-turing-institute/deepsensor/issues/47",
            "train_epoch made a new Adam, which lost its momentum; to keep it improved the loss",
        ),
        (
            "https://github.com/pythoncymetric/cymetric/pull/4",
            "compiling the model again after each epoch resets the optimizer",
        ),
        (
            "https://github.com/parasdahal/deepnet/issues/13",
            "should the optimizer's moments be zeroed at the beginning of each epoch?",
        ),
        (
            "https://github.com/FhG-IISB/jNO/pull/115",
            "a run in chunks restarted optax's schedules, and never left their first updates",
        ),
    ),
)
