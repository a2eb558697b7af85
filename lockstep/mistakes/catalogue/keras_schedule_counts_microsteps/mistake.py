"""Keras looks its schedule up at a count of micro-steps."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place, rate_of


def rate_at_iterations(at: Place) -> Number:
    """At the micro-step count before the window's last; a table's last rate is also its end's."""
    count = (at.update + 1) * at.problem.accumulation_steps - 1
    if at.problem.learning_rates is not None:
        count = min(count, len(at.problem.learning_rates) - 1)
    return rate_of(at.problem, count)


MISTAKE = Mistake(
    title="Keras looks its schedule up at a count of micro-steps",
    explanation=(
        "With gradient_accumulation_steps=K, a Keras optimizer counts every call of"
        " apply_gradients, and a LearningRateSchedule is called with that count. The property"
        " `iterations` and Adam's bias correction have it divided by K, so that what one sees is"
        " right. The documentation of gradient_accumulation_steps says it; a schedule for a port"
        " has to be K times as long."
    ),
    signature=(
        "Update u has the rate s((u + 1) K - 1), with Adam's bias correction at u + 1: with K = 2"
        " and s(n) = 1 / (1 + n), the rates are 1/2, 1/4, 1/6 instead of 1, 1/2, 1/3. Nothing"
        " differs with K = 1 or at a constant rate."
    ),
    family="schedule",
    frequency=3,
    severity=4,
    stages=replace(STAGES, learning_rate=rate_at_iterations),
    look_alikes={
        "sched-per-microstep": (
            "none where all windows are full: its second form has the same rates. Partial windows"
            " separate them, which Keras does not have: its count grows by K a window"
        ),
        "bias-correction-per-microstep": (
            "a constant learning rate: this one is right there, and that one under Adam is not"
        ),
    },
    evidence=(
        (
            "https://keras.io/api/optimizers/adam/",
            "gradient_accumulation_steps: schedules will use real iterations",
        ),
        (
            "https://github.com/keras-team/keras/pull/19998",
            "the real number of iterations was hidden under a property, for the rules",
        ),
        (
            "https://github.com/keras-team/keras/issues/19990",
            "what else counted micro-steps until July 2024",
        ),
    ),
    impossible={
        "pytorch": (
            "A scheduler of torch.optim counts the calls of its step(), and nothing else does. Who"
            " calls it every micro-step makes sched-per-microstep by hand."
        ),
        "jax": (
            "optax.MultiSteps runs the transformation inside it, with its schedule, once an"
            " update, so that the count is of updates. A schedule chained outside of it counts"
            " micro-steps, and is sched-per-microstep."
        ),
    },
    kind="library",
)
