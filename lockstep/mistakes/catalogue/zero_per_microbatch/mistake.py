"""Gradients are cleared before every micro-batch."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Place, Theta


def last_only(accumulator: Theta, gradient: Theta, at: Place) -> Theta:
    """The micro-batch's own gradient, in place of the sum."""
    return gradient


MISTAKE = Mistake(
    title="The accumulator is reset before every micro-batch",
    explanation=(
        "The reset stands in the loop over the window's micro-batches, where a loop without"
        " accumulation rightly has it, so that a window's gradient is its last micro-batch's."
        " People add accumulation to a training loop and leave zero_grad() as its first line, or"
        " use each micro-batch's gradients for the sum: sums = gradients. As the first line inside"
        " of Accelerate's accumulate() it does the same: the wrapped zero_grad() acts at the"
        " boundary alone, just before the last backward pass."
    ),
    signature=(
        "Update 1 is wrong wherever K > 1. In the coefficient matrix each row has 1/K for the"
        " window's last micro-batch and zeros for the others: about 1/K of the right size. No"
        " change to the first K - 1 micro-batches of a window changes the update. Adam hides the"
        " size, not the noise."
    ),
    family="zeroing",
    frequency=4,
    severity=5,
    stages=replace(STAGES, accumulate=last_only),
    look_alikes={
        "divide-twice": (
            "the coefficient matrix: all K micro-batches there, with 1/K^2; only the last one here"
        ),
        "reuse-one-microbatch": (
            "the coefficient matrix: one micro-batch too, but with the weight of the whole window,"
            " 1, and often the first one"
        ),
        "step-every-microbatch": (
            "the earlier micro-batches: they act there, each in an update of its own"
        ),
    },
    evidence=(
        (
            "https://github.com/bytetriper/RAE/issues/67",
            "zero_grad(set_to_none=True) is called inside of the inner loop",
        ),
        (
            "https://github.com/pytorch/torchtitan/pull/3575",
            "called at the wrong place, so that all micro-batches except the last one are zeroed",
        ),
        (
            "https://github.com/starVLA/starVLA/issues/395",
            "with Accelerate only the last micro-batch contributes; confirmed",
        ),
        (
            "https://github.com/huggingface/accelerate/issues/616",
            "the documentation itself had zero_grad() first in accumulate()",
        ),
        (
            "https://github.com/tientrandinh/Revisiting-Reverse-Distillation/issues/12",
            "zeroing before every backward pass of the accumulation, fixed",
        ),
        (
            "https://github.com/meta-pytorch/opacus/issues/93",
            "tutorials that zero before every virtual step erase what was accumulated",
        ),
    ),
)
