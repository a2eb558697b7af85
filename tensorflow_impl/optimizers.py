"""The library's own optimizer, set to take the update."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.optimizers import Optimizer

from .data import Parameters


def make_optimizer(
    parameters: Parameters, problem: Any
) -> Optimizer:
    """Return Keras's SGD with the problem's settings.

    Raises NotImplementedError for other optimizers, weight
    decay, a schedule, and clipping.
    """
    settings = problem.optimizer
    if (
        settings.name != "sgd"
        or settings.weight_decay
        or problem.learning_rates is not None
        or problem.max_norm is not None
    ):
        raise NotImplementedError("plain SGD only")
    # Keras holds plain numbers as float32; these stay exact.
    rate = tf.constant(settings.learning_rate, problem.dtype)
    optimizer = keras.optimizers.SGD(
        lambda: rate, np.float64(settings.momentum)
    )
    optimizer.build(parameters)
    return optimizer
