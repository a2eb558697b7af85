"""Optimizers in elementary operations, one rounding each.

Every constant is a host number: no device rounds it, and to
multiply by one is alike everywhere, unlike to divide by one.
"""

import math
from typing import Any

import numpy as np
import tensorflow as tf

from .data import Parameters

Moments = tuple[tf.Tensor, tf.Tensor]
Numbers = dict[str, Any]


def zeros(parameters: Parameters) -> list[Moments]:
    """Return zeros for both moments of every parameter."""
    return [
        (tf.zeros_like(p), tf.zeros_like(p))
        for p in parameters
    ]


def sgd(
    w: tf.Tensor,
    g: tf.Tensor,
    moments: Moments,
    s: Numbers,
) -> tuple[tf.Tensor, Moments]:
    """Descend with momentum and coupled weight decay."""
    m, v = moments
    g = g + w * s["l2"]
    m = m * s["momentum"] + g
    return w - m * s["rate"], (m, v)


def adamw(
    w: tf.Tensor,
    g: tf.Tensor,
    moments: Moments,
    s: Numbers,
) -> tuple[tf.Tensor, Moments]:
    """Take AdamW's update (Loshchilov and Hutter, 2019)."""
    m, v = moments
    beta1, gain1 = s["first"]
    beta2, gain2 = s["second"]
    m = m * beta1 + g * gain1
    v = v * beta2 + (g * g) * gain2
    # tf.sqrt is IEEE's; tf.math.rsqrt is not in float32.
    tiny = np.finfo(v.dtype.as_numpy_dtype).tiny
    root = v * (1 / tf.sqrt(tf.maximum(v, tiny)))
    direction = m / (root * s["unbias"] + s["eps"])
    return w * s["decay"] - direction * s["step"], (m, v)


def learning_rate(problem: Any, update: int) -> float:
    """Return the learning rate of an update, from 1."""
    if problem.learning_rates is None:
        return problem.optimizer.learning_rate
    return problem.learning_rates[update - 1]


def constants(
    problem: Any, update: int, examples: int
) -> Numbers:
    """Return an update's factors, made on the host."""
    settings = problem.optimizer
    rate = learning_rate(problem, update)
    beta1, beta2 = settings.betas
    return {
        "mean": 1 / examples,
        "rate": rate,
        "momentum": settings.momentum,
        "l2": settings.weight_decay,
        "decay": 1 - rate * settings.weight_decay,
        "first": (beta1, 1 - beta1),
        "second": (beta2, 1 - beta2),
        "unbias": 1 / math.sqrt(1 - beta2**update),
        "eps": settings.eps,
        "step": rate / (1 - beta1**update),
    }


def as_tensors(numbers: Numbers, dtype: str) -> Numbers:
    """Convert: tf.function traces anew for every number."""
    return tf.nest.map_structure(
        lambda n: tf.constant(n, dtype), numbers
    )


RULES = {"sgd": sgd, "adamw": adamw}
