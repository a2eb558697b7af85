"""A micro-batch that is not finite is skipped, and the next one takes its place."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place, Theta, finite


def unweighed(at: Place) -> Number:
    """Sum the losses; how many examples they are of is known at the boundary."""
    return at.number(1)


def accept(accumulator: Theta, gradient: Theta, at: Place) -> Theta:
    """Add a gradient that is finite, and count its examples."""
    if len(at.gradients) == 1:
        at.kept["examples"] = 0
    if not finite(gradient, at):
        return accumulator
    at.kept["examples"] += at.examples
    return accumulator + gradient


def mean(accumulator: Theta, at: Place) -> Theta:
    """Divide by the examples that were accepted."""
    return accumulator * (1 / at.kept["examples"])


def accepted(at: Place) -> int:
    """How many micro-batches of the window so far were finite."""
    return sum(finite(gradient, at) for gradient in at.gradients)


def full(at: Place) -> bool:
    """A window has K finite micro-batches, unless the epoch ends."""
    last = at.micro_step + 1
    return accepted(at) == at.problem.accumulation_steps or last == at.micro_steps


def reject(accumulator: Theta, gradient: Theta, at: Place) -> Theta:
    """Add a gradient that is finite."""
    return accumulator + gradient if finite(gradient, at) else accumulator


def full_across_epochs(at: Place) -> bool:
    """A library knows no epochs: the window ends with as many as it was to have."""
    return accepted(at) == len(at.problem.windows[at.update])


MISTAKE = Mistake(
    title="Only the micro-batch that is not finite is skipped, and the window extends",
    explanation=(
        "optax.MultiSteps with should_skip_update_fn=skip_not_finite and Keras's"
        " LossScaleOptimizer around gradient_accumulation_steps drop the micro-batch alone, and"
        " wait for another one; torch.amp.GradScaler drops the whole window. Ported from one to"
        " the other, a run has other windows from the first overflow on."
    ),
    signature=(
        "All is right up to the first window that is not finite. That window is an update, of"
        " its finite micro-batches and the next one, where it should change nothing, and all"
        " later windows of the epoch begin one micro-batch late."
    ),
    family="precision",
    frequency=2,
    severity=2,
    stages=replace(STAGES, weigh=unweighed, accumulate=accept, boundary=full, normalise=mean),
    forms=(replace(STAGES, accumulate=reject, boundary=full_across_epochs),),
    look_alikes={
        "skipped-microbatch-counted": (
            "the window after the overflow: there it begins where it should, here one late"
        ),
        "nonfinite-zeroed": (
            "the parameters after the window with the overflow, without momentum and decay: there"
            " they stay, here they move"
        ),
    },
    evidence=(
        (
            "https://github.com/google-deepmind/optax/blob/main/optax/transforms/_accumulation.py",
            "a rejected mini-step: as if it never happened",
        ),
        (
            "https://github.com/mflux-community/mflux/pull/447",
            "a review asks to count the valid micro-batches of a window, not all",
        ),
        (
            "https://github.com/speechbrain/speechbrain/issues/1936",
            "asks to check every micro-batch's loss, not the boundary's alone",
        ),
        (
            "https://github.com/MeryylleA/lunariscodex/pull/71",
            "a loss that is not finite is skipped alone; which window is it then?",
        ),
    ),
    kind="policy",
)
