"""Adam's bias correction counts micro-steps."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle import rules
from lockstep.oracle.loop import STAGES, Number, Place, constants
from lockstep.oracle.rules import Constants


def corrected_for(rate: Number, at: Place, count: int) -> Constants:
    """The numbers of an update, Adam's bias corrected for another count, from 1."""
    numbers, s = constants(rate, at), at.problem.optimizer
    if s.name in ("adam", "adamw"):
        counted = rules.constants(s, rate, count - 1, at.decays, at.dtype)
        numbers |= {name: counted[name] for name in ("unbias", "step")}
    return numbers


def counting_micro_steps(rate: Number, at: Place) -> Constants:
    """Count the optimizer's micro-steps so far, those of skipped windows too."""
    count = at.epoch * at.micro_steps + at.micro_step + 1
    return corrected_for(rate, at, count - at.kept.get("micro-steps before", 0))


def counting_k_an_update(rate: Number, at: Place) -> Constants:
    """Count K micro-steps an update, whatever its window has."""
    return corrected_for(rate, at, (at.update + 1) * at.problem.accumulation_steps)


MISTAKE = Mistake(
    title="Adam's bias correction counts micro-steps",
    explanation=(
        "The count t goes up by K an update, while m and v have seen one gradient an update. One"
        " global count of processed micro-batches serves for the log, and for the optimizer."
        " Keras's gradient_accumulation_steps did this until July 2024, and so does a wrapper that"
        " increases the optimizer's iterations at every micro-step."
    ),
    signature=(
        "Update 1 is the first to differ, and the most: it is (1 - beta1) / (1 - beta1^K) sqrt((1"
        " - beta2^K) / (1 - beta2)) of what it should be, 0.581 for K = 4, 0.9 and 0.999. The"
        " factor goes to 1 with the updates. With K = 1 nothing differs. m and v are right, and a"
        " step in the state may be K times too large. SGD is right, and here Adamax and NAdam too."
    ),
    family="optimizer",
    frequency=3,
    severity=3,
    stages=replace(STAGES, constants=counting_micro_steps),
    forms=(replace(STAGES, constants=counting_k_an_update),),
    look_alikes={
        "bias-step-off-by-one": "with K = 1 it still shows there",
        "sched-per-microstep": "with a constant learning rate it is right there",
        "zero-gradients-applied": "m and v shrink between the updates there, and parameters move",
    },
    evidence=(
        (
            "https://github.com/keras-team/keras/issues/19990",
            "Adam always fails: self.iterations is different in every accumulation step",
        ),
        (
            "https://github.com/keras-team/keras/pull/19998",
            "the real number of iterations was hidden under a property; the fix",
        ),
        (
            "https://github.com/horovod/horovod/pull/3631",
            "fix the optimizer iteration count when gradient accumulation is enabled",
        ),
    ),
)
