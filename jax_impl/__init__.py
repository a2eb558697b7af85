"""The accumulation loop in JAX, where state goes around."""

import jax

from .model import linear_model, squared_error
from .training import gradient_descent, train, train_window

# Without this, JAX makes float32 of float64 without a word.
# Drop it where you copy this to, if you train in float32.
jax.config.update("jax_enable_x64", True)

__all__ = [
    "gradient_descent",
    "linear_model",
    "squared_error",
    "train",
    "train_window",
]
