"""The library's own optimizer, set to take the update."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.optimizers import Optimizer

from .data import Parameters


def require_plain_sgd(problem: Any) -> None:
    """Refuse decay, a schedule, clipping, another rule."""
    plain = (
        problem.optimizer.name == "sgd"
        and problem.optimizer.weight_decay == 0
        and problem.learning_rates is None
        and problem.max_norm is None
    )
    if not plain:
        raise NotImplementedError("SGD at one rate only")


def make_optimizer(
    parameters: Parameters, problem: Any
) -> Optimizer:
    """Return Keras's SGD with the problem's settings.

    Raises NotImplementedError unless it is plain SGD.
    """
    require_plain_sgd(problem)
    settings = problem.optimizer
    # Keras holds plain numbers as float32; these stay exact.
    rate = tf.constant(settings.learning_rate, problem.dtype)
    optimizer = keras.optimizers.SGD(
        lambda: rate, np.float64(settings.momentum)
    )
    optimizer.build(parameters)
    return optimizer
