"""The squared error is halved."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place


def doubled(total: Number, rows: int, at: Place) -> Number:
    """Divide by twice the examples."""
    return total * 2


MISTAKE = Mistake(
    title="The loss is half the squared error",
    explanation=(
        "optax.l2_loss and tf.nn.l2_loss have a factor 1/2, so that the gradient is the error"
        " itself; torch.nn.MSELoss, Keras's and optax.squared_error have none. Textbooks have"
        " either. Where a port takes the other one, every gradient is half of what it was."
    ),
    signature=(
        "Every gradient is half as large, from update 1 on, with K = 1 too, and whatever the"
        " number of outputs or of examples; the reported loss as well."
    ),
    family="scaling",
    frequency=3,
    severity=2,
    stages=replace(STAGES, count=doubled),
    look_alikes={
        "mean-over-outputs": "another number of outputs than two: there that one is another factor",
        "divide-twice": "K = 1: there that one is right",
    },
    evidence=(
        (
            "https://optax.readthedocs.io/en/latest/api/losses.html",
            "l2_loss: the 0.5 term is standard in one textbook and not in the other",
        ),
        (
            "https://www.tensorflow.org/api_docs/python/tf/nn/l2_loss",
            "computes half the L2 norm of a tensor without the sqrt",
        ),
    ),
)
