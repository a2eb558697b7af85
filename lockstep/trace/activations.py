"""Activations, of which a layer of some libraries has one inside, and of others none."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from lockstep.trace.reading import Array


def gelu(x: Array, half: float = math.sqrt(0.5)) -> Array:
    """x Phi(x); half: sqrt(1 / 2)."""
    erf = np.vectorize(math.erf, otypes=[float])
    return np.asarray(0.5 * x * (1 + erf(x * half)))


def gelu_by_tanh(x: Array, cubic: float = 0.044715) -> Array:
    """Its approximation; cubic: the weight of the cube."""
    return np.asarray(0.5 * x * (1 + np.tanh(0.7978845608028654 * (x + cubic * x**3))))


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "no activation": lambda x: x,
    "ReLU": lambda x: np.maximum(x, 0),
    "GELU": gelu,
    "GELU by tanh": gelu_by_tanh,
    "GELU by sigmoid": lambda x: x * sigmoid(1.702 * x),
    "SiLU": lambda x: x * sigmoid(x),
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "leaky ReLU of 0.01": lambda x: np.where(x > 0, x, 0.01 * x),
    "leaky ReLU of 0.2": lambda x: np.where(x > 0, x, 0.2 * x),
    "ELU": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "softplus": lambda x: np.logaddexp(x, 0),
    "squared ReLU": lambda x: np.maximum(x, 0) ** 2,
}
# TensorFlow's constants are float32 before they are cast to what is computed in.
IN_SINGLE: dict[str, Callable[[Array], Array]] = {
    "GELU": lambda x: gelu(x, float(np.float32(math.sqrt(0.5)))),
    "GELU by tanh": lambda x: gelu_by_tanh(x, float(np.float32(0.044715))),
}


def softmax(x: Array) -> Array:
    """exp(x) of its sum over the last axis."""
    powers = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


# What makes probabilities of a model's outputs, which another one leaves to its loss.
PROBABILITIES: dict[str, Callable[[Array], Array]] = {"softmax": softmax, "sigmoid": sigmoid}
# How many numbers tell most activations apart.
SOME = 4096


def before_activation(
    here: Array, there: Array, near: Callable[[Array, Array], bool], last: bool
) -> Array | None:
    """Of two arrays the one of which the other is an activation; None if neither is.

    near: whether two arrays are the same; last: whether only probabilities may be made of it.
    """
    for x, y in ((here, there), (there, here)):
        for name, f in ({} if last else ACTIVATIONS).items():
            flat = x.ravel()[:SOME], y.ravel()[:SOME]
            if name != "no activation" and near(flat[1], f(flat[0])) and near(y, f(x)):
                return x
        if x.ndim > 1 and any(near(y, f(x)) for f in PROBABILITIES.values()):
            return x
    return None
