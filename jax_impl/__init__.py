"""The accumulation loop in JAX, where state goes around."""

from .model import linear_model, squared_error
from .training import gradient_descent, train, train_window

__all__ = [
    "gradient_descent",
    "linear_model",
    "squared_error",
    "train",
    "train_window",
]
