"""Gradients are never cleared."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place, Theta, clip


def keep(accumulator: Theta, at: Place) -> Theta:
    """No reset: the accumulator goes on into the next window."""
    return accumulator


def clip_in_place(gradient: Theta, at: Place) -> Theta:
    """Clip, and leave the clipped gradient where the sum was."""
    at.kept["clipped"] = clip(gradient, at)
    return at.kept["clipped"]


def keep_clipped(accumulator: Theta, at: Place) -> Theta:
    """No reset, of an accumulator that was unscaled and clipped in place, as .grad is."""
    return at.kept["clipped"] if at.taken else accumulator


def add_to_mean(accumulator: Theta, gradient: Theta, at: Place) -> Theta:
    """Add to the last window's mean, which was divided in place, and is divided again."""
    if at.position == 0 and "clipped" in at.kept:
        accumulator = at.kept["clipped"] / at.window_examples
    return accumulator + gradient


def unweighed(at: Place) -> Number:
    """Sum first, and divide the sum."""
    return at.number(1)


def by_window(accumulator: Theta, at: Place) -> Theta:
    """Divide the sum by the examples of this window."""
    return accumulator / at.window_examples


def by_all(accumulator: Theta, at: Place) -> Theta:
    """Divide the sum by the examples of all windows so far: their count is not reset either."""
    at.kept["examples"] = at.kept.get("examples", 0) + at.window_examples
    return accumulator / at.kept["examples"]


MISTAKE = Mistake(
    title="The accumulator is never reset",
    explanation=(
        "Every update uses the sum of all gradients since the start. PyTorch's backward() adds"
        " into .grad until somebody zeroes it; in TensorFlow and JAX a sum of your own that"
        " outlives its window does the same."
    ),
    signature=(
        "Update 1 is right and update 2 is the first to differ. In the coefficient matrix every"
        " row has the micro-batches of all windows so far: a staircase. Under SGD it is momentum 1,"
        " in every bit."
    ),
    family="zeroing",
    frequency=5,
    severity=4,
    stages=replace(STAGES, reset=keep),
    forms=(
        replace(STAGES, clip=clip_in_place, reset=keep_clipped),
        replace(STAGES, clip=clip_in_place, accumulate=add_to_mean),
        replace(STAGES, weigh=unweighed, normalise=by_window, reset=keep),
        replace(STAGES, weigh=unweighed, normalise=by_all, reset=keep),
    ),
    look_alikes={
        "momentum-one": "the gradient that the port yields: there it is that of one window",
        "zero-once-per-epoch": "the first update of a later epoch: with a reset there, it is right",
    },
    evidence=(
        (
            "https://github.com/tenstorrent/tt-blacksmith/pull/711",
            "forgot to do zero_grad after each optimizer step",
        ),
        (
            "https://github.com/meta-pytorch/torchforge/pull/71",
            "a bug where gradients were not zeroed",
        ),
        (
            "https://github.com/yastrebksv/TennisCourtDetector/issues/7",
            "the author agrees, and fixes it",
        ),
        ("https://github.com/pytorch/pytorch/issues/47175", "a request to warn, still open"),
        (
            "https://github.com/jcjohnson/pytorch-examples/issues/31",
            "the model will sometimes train anyway, but very unstably",
        ),
    ),
)
