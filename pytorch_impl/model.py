"""A linear model and its squared error."""

from torch import Tensor


def linear_model(x: Tensor, W: Tensor, b: Tensor) -> Tensor:
    """Return xW + b, of shape (examples, outputs)."""
    return x @ W + b


def squared_error(
    prediction: Tensor, target: Tensor, window_examples: int
) -> Tensor:
    """Return the squared error, summed, per example.

    `prediction` and `target`: (examples, outputs). Pass the
    examples of the whole window, not of this micro-batch,
    and the losses of a window's micro-batches add up to it.
    """
    return (
        prediction - target
    ).square().sum() / window_examples
