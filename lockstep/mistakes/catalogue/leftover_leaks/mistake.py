"""A partial window's gradients stay for the next epoch's first update."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place, examples, weigh
from lockstep.problem import Problem


def not_dropped(problem: Problem) -> Problem:
    """What was to be dropped stays as well."""
    if problem.partial_windows != "drop":
        return problem
    return replace(problem, partial_windows="apply")


def whole(at: Place) -> bool:
    """Whether the micro-step is the K-th of its window; an epoch's end is no boundary."""
    return at.position + 1 == at.problem.accumulation_steps


def all_examples(at: Place) -> Number:
    """Divide by the examples of the K + r micro-batches, where r were left over."""
    k, count = at.problem.accumulation_steps, at.micro_steps
    rest = range(count - count % k, count)
    if at.micro_step in rest or (at.epoch and at.micro_step < k):
        return 1 / sum(
            (examples(index, at) for index in (*rest, *range(min(k, count)))), at.number(0)
        )
    return weigh(at)


def constant(at: Place) -> Number:
    """The micro-batch's mean, divided by K."""
    return 1 / (at.examples * at.problem.accumulation_steps)


MISTAKE = Mistake(
    title="A partial window's gradients enter the next epoch's first update",
    explanation=(
        "The counter restarts with the epoch and the update resets the accumulator, but the"
        " micro-batches after an epoch's last boundary meet neither: they stay, and the next"
        " epoch's first update has K + r micro-batches, r = N mod K. In PyTorch it takes no more"
        " than `for i, batch in enumerate(loader)` and a `zero_grad()` that only follows `step()`;"
        " elsewhere it takes a list or a sum that is made once, before the loop over epochs."
    ),
    signature=(
        "The first epoch has one update too few, and the second epoch's first update is the first"
        " with wrong contents: K + r columns in its row of the coefficient matrix. Each is"
        " 1 / (K + r) where the sum is divided by its own examples, and 1 / K, so that the gradient"
        " is (K + r) / K too large, where the loss is divided by K. Where K is larger than N"
        " nothing is ever updated, where N is a multiple of K nothing differs."
    ),
    family="windows",
    frequency=4,
    severity=4,
    stages=replace(STAGES, settings=not_dropped, weigh=all_examples, boundary=whole),
    forms=(
        replace(STAGES, boundary=whole),
        replace(STAGES, boundary=whole, weigh=constant),
    ),
    look_alikes={
        "leftover-dropped": "the second epoch's first row of the coefficient matrix: K columns"
        " there, K + r here",
        "leftover-carried": "the same row: r columns and the first K - r there",
        "zero-once-per-epoch": "a second window in the epoch: right here",
    },
    evidence=(
        (
            "https://github.com/meta-pytorch/torchtune/pull/2745",
            "with 63 batches and K = 8, an epoch begins by accumulating 15 batches",
        ),
        (
            "https://github.com/WalkingMeatAxolotl/AnimaLoraStudio/pull/305",
            "the tail's gradients leak into the next epoch's first update, divided by K",
        ),
        (
            "https://github.com/timoschick/pet/pull/25",
            "the counter is reset in every epoch: with fewer than K batches there is no update",
        ),
    ),
)
