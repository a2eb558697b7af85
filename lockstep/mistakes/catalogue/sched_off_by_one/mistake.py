"""Every update has the learning rate of a neighbour."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place, rate_of


def rate_ahead(at: Place) -> Number:
    """The rate of the next update: the first one is never used."""
    return rate_of(at.problem, at.update + 1)


def rate_behind(at: Place) -> Number:
    """The rate of the previous update: the first one is used twice."""
    return rate_of(at.problem, max(at.update - 1, 0))


MISTAKE = Mistake(
    title="Every update has the learning rate of a neighbour",
    explanation=(
        "scheduler.step() stands before optimizer.step(), as it had to before PyTorch 1.1; or the"
        " schedule is asked at a count that starts at 1, since a warm-up from 0 wastes an update."
        " One update is little in a long run, and a warm-up hides it; two runs that are compared"
        " update by update differ at once."
    ),
    signature=(
        "Update u has the rate of u + 1, or of u - 1 with the first one twice, from the first"
        " update on and whatever K is. Under plain SGD each update is off by the ratio of two"
        " neighbouring rates."
    ),
    family="schedule",
    frequency=4,
    severity=1,
    stages=replace(STAGES, learning_rate=rate_ahead),
    forms=(replace(STAGES, learning_rate=rate_behind),),
    look_alikes={
        "sched-per-microstep": "K = 2 and K = 3: the shift grows with K and u there",
        "sched-with-skipped-window": "a run without a skipped window: that one is right there",
        "bias-step-off-by-one": "SGD: that one is right there, and this one is not",
    },
    evidence=(
        (
            "https://docs.pytorch.org/docs/stable/optim.html",
            "scheduler.step() before optimizer.step() skips the schedule's first value",
        ),
        (
            "https://github.com/facebookresearch/ParlAI/issues/2042",
            "the scheduler is stepped before the optimizer",
        ),
        (
            "https://github.com/huggingface/trl/issues/1872",
            "both calls stand in the wrong order; fixed",
        ),
        (
            "https://github.com/ThilinaRajapakse/pytorch-transformers-classification/issues/21",
            "PyTorch's warning, and the two lines swapped",
        ),
        (
            "https://github.com/pytorch/ignite/issues/2462",
            "the first update has the peak instead of the warm-up's first value",
        ),
    ),
)
