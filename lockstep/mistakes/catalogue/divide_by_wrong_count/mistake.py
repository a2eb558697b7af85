"""A micro-batch's mean is divided by another count than its window's."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place, Theta


def so_far(at: Place) -> Number:
    """The number of micro-batches up to this one."""
    return 1 / (at.examples * (at.position + 1))


def examples_so_far(at: Place) -> Number:
    """The number of the window's examples up to this micro-batch."""
    before = at.kept["examples"] if at.position else 0
    at.kept["examples"] = before + at.examples
    return 1 / at.kept["examples"]


def so_far_in_epoch(at: Place) -> Number:
    """The number of the epoch's micro-batches up to this one."""
    return 1 / (at.examples * (at.micro_step + 1))


def in_epoch(at: Place) -> Number:
    """The number of micro-batches of a whole epoch, len(loader)."""
    return 1 / (at.examples * len(at.problem.micro_batches))


def last_examples(accumulator: Theta, at: Place) -> Theta:
    """The examples of the last micro-batch alone: a count that is set, not added to."""
    return accumulator * (at.window_examples / at.examples)


MISTAKE = Mistake(
    title="The loss is divided by a count that is not the window's",
    explanation=(
        "The divisor is what has been seen so far, micro_step + 1 or the examples up to here, or"
        " the number of micro-batches of an epoch, len(loader). A running count gives a running"
        " mean only if the earlier terms are scaled again, and gradients that were added are not."
    ),
    signature=(
        "Update 1 is wrong already, unless the count happens to be K. A block of the coefficient"
        " matrix has 1, 1/2, 1/3 with a count that grows in each window, goes on to 1/4, 1/5, 1/6"
        " in the next window with one that grows in each epoch, and has 1/7 everywhere with the"
        " seven micro-batches of an epoch."
    ),
    family="scaling",
    frequency=3,
    severity=3,
    stages=replace(STAGES, weigh=so_far),
    forms=(
        replace(STAGES, weigh=examples_so_far),
        replace(STAGES, weigh=so_far_in_epoch),
        replace(STAGES, weigh=in_epoch),
        replace(STAGES, normalise=last_examples),
    ),
    look_alikes={
        "summed-loss-backward": "K = 3: there a block has 1, 2/3, 1/3",
        "divide-twice": "the length of an epoch: there nothing changes with it",
        "no-divide": "the last micro-batch of a window: there it counts as much as the first",
    },
    evidence=(
        (
            "https://github.com/karpathy/nanoGPT/issues/605",
            "should it be loss / (micro_step + 1)? It should not",
        ),
        (
            "https://github.com/Lightning-AI/litgpt/issues/1927",
            "K from the devices of one node: off by a factor of the nodes",
        ),
        (
            "https://github.com/PrimeIntellect-ai/prime-rl/pull/1961",
            "a review: the count includes micro-batches that are skipped",
        ),
    ),
)
