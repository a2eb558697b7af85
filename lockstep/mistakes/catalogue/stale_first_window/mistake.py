"""A backward pass before the loop leaves its gradient in the first window."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Place, Theta


def first(at: Place) -> bool:
    """Whether this is the first micro-step of the run, before which the accumulator is not 0."""
    return at.epoch == 0 and at.micro_step == 0


def mean(gradient: Theta, at: Place) -> Theta:
    """What the first micro-batch has as a window of its own, whatever its share of this one."""
    return gradient / (at.stages.weigh(at) * at.examples)


def mean_of_first(accumulator: Theta, gradient: Theta, at: Place) -> Theta:
    """The first micro-batch was run before, as a window of its own."""
    if first(at):
        accumulator = accumulator + mean(gradient, at)
    return accumulator + gradient


def unscaled_mean_of_first(accumulator: Theta, gradient: Theta, at: Place) -> Theta:
    """The same without the loss scale."""
    if first(at):
        accumulator = accumulator + mean(gradient, at) * at.number(1 / at.scale)
    return accumulator + gradient


def first_twice(accumulator: Theta, gradient: Theta, at: Place) -> Theta:
    """The first micro-batch was run before, with its share of its window."""
    return accumulator + gradient + gradient if first(at) else accumulator + gradient


def window_twice(accumulator: Theta, gradient: Theta, at: Place) -> Theta:
    """The whole first window was run before."""
    return accumulator + gradient + gradient if at.window == 0 else accumulator + gradient


MISTAKE = Mistake(
    title="A backward pass before the loop leaves a gradient in the first window",
    explanation=(
        "The loop resets after each update, which is right only if the accumulator is empty when"
        " it starts. A dry run before the loop, to see that data and model fit, to check gradients"
        " or to compile, deposits a gradient that the first window then has on top of its own."
        " backward() adds into .grad silently; in TensorFlow variables do the same; in JAX it needs"
        " the warm-up call's sums to be kept, as one does where buffers are donated."
    ),
    signature=(
        "Update 1 is wrong, and every later one is right with respect to the parameters and the"
        " state that it starts from. In the coefficient matrix the first row has an additional 1"
        " for micro-batch 1, if the dry run took it as a batch of its own (1/K, if with its share"
        " of the window), and all other rows are right."
    ),
    family="zeroing",
    frequency=2,
    severity=3,
    stages=replace(STAGES, accumulate=mean_of_first),
    forms=(
        replace(STAGES, accumulate=unscaled_mean_of_first),
        replace(STAGES, accumulate=first_twice),
        replace(STAGES, accumulate=window_twice),
    ),
    look_alikes={
        "leftover-leaks": (
            "the first update: it is right there, and the first update of every later epoch is"
            " wrong; here it is the other way round"
        ),
        "dampening-first-update": (
            "plain SGD: without momentum only this one differs from the correct loop"
        ),
        "reuse-one-microbatch": (
            "row 2 of the coefficient matrix: it is right here, and as wrong as row 1 there"
        ),
        "missing-zero-grad": "update 2, given the parameters after update 1: it is right here",
    },
    evidence=(
        (
            "https://github.com/karpathy/llm.c/pull/548",
            "a duplicate deposit of gradients in the first training step explains the divergence"
            " between PyTorch and C",
        ),
    ),
)
