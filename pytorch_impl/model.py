"""A linear model and its squared error."""

from torch import Tensor


def linear_model(x: Tensor, W: Tensor, b: Tensor) -> Tensor:
    """Return xW + b, of shape (examples, outputs)."""
    return x @ W + b


def squared_error(
    prediction: Tensor, target: Tensor, examples: int
) -> Tensor:
    """Return the summed squared error over `examples`.

    Both arguments have shape (examples, outputs), the result
    is a scalar. Pass the window's examples, not the
    micro-batch's, and the losses of a window add up to it.
    """
    return (prediction - target).square().sum() / examples
