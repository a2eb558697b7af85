"""The parameters are updated after every micro-batch."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place, boundary, learning_rate, rate_of
from lockstep.problem import Problem


def always(at: Place) -> bool:
    """Every micro-step is followed by an update."""
    return True


def rate_of_window(at: Place) -> Number:
    """The updates of a window share its learning rate."""
    k = at.problem.accumulation_steps
    return rate_of(at.problem, at.epoch * -(-at.micro_steps // k) + at.micro_step // k)


def rate_of_table(at: Place) -> Number:
    """A learning rate for each update, from a table as long as the windows; then its last."""
    if at.problem.learning_rates is not None:
        return learning_rate(at)
    return rate_of(at.problem, min(at.update, at.problem.updates - 1))


def no_accumulation(problem: Problem) -> Problem:
    """Every micro-batch is a window."""
    return replace(problem, accumulation_steps=1)


MISTAKE = Mistake(
    title="The parameters are updated after every micro-batch",
    explanation=(
        "The update stands inside the loop over micro-batches, so nothing accumulates: the loss is"
        " divided by the window's size, but its share is applied at once, and the next micro-batch"
        " sees other parameters. It comes from an update that was indented too far, or from a"
        " condition on the boundary that is always true. The optimizer's state, its counter"
        " and decay run K times per window, and clipping sees one micro-batch at a time."
    ),
    signature=(
        "Update 1 differs. If the parameters are shown after every micro-step, there are K times as"
        " many updates, and each row of the coefficient matrix has one column, of 1 / K, or of 1"
        " where the loss is not divided. If they are shown once a window, the coefficient matrix"
        " is right, since its learning rate is too small to move a gradient; under plain SGD the"
        " difference is of second order in the learning rate. Momentum, Adam and decay show at"
        " first order. K = 1 is right."
    ),
    family="windows",
    frequency=3,
    severity=4,
    stages=replace(STAGES, boundary=always, shows=boundary),
    forms=(
        replace(STAGES, boundary=always),
        replace(STAGES, boundary=always, shows=boundary, learning_rate=rate_of_window),
        replace(STAGES, boundary=always, shows=boundary, learning_rate=rate_of_table),
        replace(STAGES, settings=no_accumulation),
    ),
    look_alikes={
        "apply-every": "plain SGD: all gradients of a window are at the same parameters there",
        "zero-gradients-applied": "plain SGD: right there",
        "wd-per-microstep": "weight decay 0: right there",
        "bias-correction-per-microstep": "an optimizer without bias correction: right there",
        "sched-per-microstep": "a constant learning rate: right there",
    },
    evidence=(
        (
            "https://github.com/eriklindernoren/PyTorch-YOLOv3/pull/313",
            "should only be done once for every n batches",
        ),
        (
            "https://github.com/eriklindernoren/PyTorch-YOLOv3/issues/325",
            "`if batches_done % K:` calls the optimizer on every batch except the K-th",
        ),
        (
            "https://github.com/huggingface/accelerate/issues/435",
            "an inverted condition: an update on every other micro-step",
        ),
        (
            "https://github.com/paiml/entrenar/issues/131",
            "each block's backward updates its weights at once, rather than once a window",
        ),
    ),
)
