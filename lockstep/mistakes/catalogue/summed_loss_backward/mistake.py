"""Every micro-step differentiates the sum of all losses so far."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Place, Theta


def accumulate_sum(accumulator: Theta, gradient: Theta, at: Place) -> Theta:
    """Add the gradients of all of the window's micro-batches so far, not this one's alone."""
    return accumulator + sum(at.gradients)


MISTAKE = Mistake(
    title="backward() in every micro-step, on the running sum of the losses",
    explanation=(
        "total += loss; total.backward(retain_graph=True). Either the losses are to be added up, or"
        " the gradients; here it is both. Without retain_graph PyTorch raises in the second"
        " micro-step, and its message asks for it. The graphs of the whole window stay in memory."
        " A tape holds what ran inside it alone, so that in TensorFlow it takes a persistent one"
        " around the window, and in JAX a function of all micro-batches so far."
    ),
    signature=(
        "Update 1 is wrong already. A block of the coefficient matrix has 1, (K - 1)/K, ..., 1/K:"
        " the first micro-batch counts K times, the last once. With equal gradients the sum is"
        " (K + 1)/2 times too large. With K = 1 all is right."
    ),
    family="scaling",
    frequency=3,
    severity=4,
    stages=replace(STAGES, accumulate=accumulate_sum),
    look_alikes={
        "divide-by-wrong-count": "K = 3: there a block has 1, 1/2, 1/3",
        "missing-zero-grad": "update 1: there it is right",
    },
    evidence=(
        (
            "https://github.com/pytorch/pytorch/issues/17568",
            "memory grows with every loss that is added",
        ),
        (
            "https://github.com/microsoft/unilm/issues/1348",
            "a reader takes retain_graph=True for what makes gradients accumulate",
        ),
        (
            "https://github.com/rentruewang/brief/issues/1",
            "why retain_graph: because backward() is called in the loop",
        ),
        (
            "https://github.com/tensorflow/tensorflow/issues/55478",
            "losses added across tapes: the gradient is the last micro-batch's",
        ),
    ),
)
