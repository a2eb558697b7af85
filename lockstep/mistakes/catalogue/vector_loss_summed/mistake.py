"""The loss is the sum over examples, not a mean."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place


def summed(at: Place) -> Number:
    """Every example counts once."""
    return at.number(1)


def summed_over_k(at: Place) -> Number:
    """The same, divided by the number of micro-batches as one is told to."""
    return at.number(1) / at.window_length


MISTAKE = Mistake(
    title="The loss is the sum over the examples, and never divided by their number",
    explanation=(
        'A reduction is "sum", or there is none. TensorFlow\'s tape takes a loss for each example'
        " and returns the gradient of their sum without a word. PyTorch and JAX raise, and ask for"
        " a scalar; .sum() and torch.ones_like(loss) satisfy them."
    ),
    signature=(
        "Every gradient is the sum over the window's examples, too large by their number, from"
        " update 1 on and with K = 1 too. The factor follows the batch size: with micro-batches of"
        " two the coefficient matrix has blocks of 2, or of 2/K where the loss was divided by K."
    ),
    family="scaling",
    frequency=3,
    severity=3,
    stages=replace(STAGES, weigh=summed),
    forms=(replace(STAGES, weigh=summed_over_k),),
    look_alikes={
        "no-divide": "one micro-batch an update: there all is right",
        "mean-of-means": "equal micro-batches: there all is right",
    },
    evidence=(
        (
            "https://www.tensorflow.org/api_docs/python/tf/compat/v1/gradients",
            "derivatives of the sum of ys",
        ),
        (
            "https://discuss.pytorch.org/t/grad-can-be-implicitly-created-only-for-scalar-outputs/"
            "116234/2",
            "pass torch.ones_like(loss), or reduce the loss before",
        ),
        (
            "https://github.com/jax-ml/jax/pull/3113",
            "JAX's own notebooks summed: gradients exploded for larger batches",
        ),
        (
            "https://github.com/utcsilab/deepinpy/issues/13",
            "reduction='sum', and the gradient explodes with the batch size",
        ),
        (
            "https://github.com/EleutherAI/bergson/pull/344",
            "two branches disagree by a factor of the batch size",
        ),
    ),
)
