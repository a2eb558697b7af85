"""A partial window is divided by K, not by its own length."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place, Theta, weigh


def by_k(accumulator: Theta, at: Place) -> Theta:
    """Count every window as K micro-batches of its average size."""
    length, k = len(at.gradients), at.problem.accumulation_steps
    return accumulator if length == k else accumulator * (at.number(length) / k)


def share_of_k(at: Place) -> Number:
    """The same of each micro-batch, before anything is summed."""
    return weigh(at) * at.number(at.window_length) / at.problem.accumulation_steps


MISTAKE = Mistake(
    title="A partial window is divided by K, not by its own length",
    explanation=(
        "An epoch's last window is applied, but its r micro-batches are weighed as if there were K:"
        " the divisor is a constant of the run, `loss / accumulation_steps`, or an effective batch"
        " size, and nobody thinks of the window that is shorter. Trainers that flush the last"
        " window do so unless they say otherwise."
    ),
    signature=(
        "Only an epoch's partial window differs: its gradient is r / K of what it should be, and"
        " so is its block in the coefficient matrix, 1 / K where 1 / r is right. Under Adam the"
        " factor hides behind eps, and shows in the next updates' moments. Where N is a multiple"
        " of K nothing differs."
    ),
    family="windows",
    frequency=4,
    severity=2,
    stages=replace(STAGES, normalise=by_k),
    forms=(replace(STAGES, weigh=share_of_k),),
    look_alikes={
        "mean-of-means": "ragged windows of K micro-batches: right here",
        "divide-by-wrong-count": "windows of K micro-batches: right here",
        "divide-twice": "windows of K micro-batches: right here",
    },
    evidence=(
        (
            "https://github.com/huggingface/transformers/pull/38872",
            "the loss is always divided by K, even in an epoch's last window: with half of the"
            " micro-batches, half the loss and half the norm",
        ),
        (
            "https://github.com/Lightning-AI/pytorch-lightning/issues/19987",
            "the gradients are scaled by accumulate_grad_batches, not by the actual number",
        ),
        (
            "https://github.com/Lightning-AI/pytorch-lightning/issues/4653",
            "the rest of an epoch is applied",
        ),
        (
            "https://github.com/LibreYOLO/libreyolo/pull/857",
            "in review: a remainder of one with K = 2 receives half the intended gradient",
        ),
        ("https://github.com/m2lines/Samudra/pull/476", "in review: the same"),
        ("https://github.com/NVIDIA-NeMo/Automodel/pull/2257", "rescaled by the factor K / r"),
    ),
)
