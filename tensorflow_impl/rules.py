"""Optimizers in elementary operations, one rounding each.

Multiplying by a constant rounds alike everywhere; dividing
by one does not.
"""

from typing import Any

import tensorflow as tf

from .adam import Moments, New, adam, amsgrad
from .constants import Numbers
from .data import Parameters
from .problem import Problem


def zeros(parameters: Parameters) -> list[Moments]:
    """Return zeros for the moments of every parameter."""
    return [(tf.zeros_like(p),) * 3 for p in parameters]


def sgd(
    w: tf.Tensor,
    g: tf.Tensor,
    moments: Moments,
    numbers: Numbers,
) -> New:
    """Descend with momentum and coupled weight decay."""
    m, *others = moments
    g = g + w * numbers["l2"]
    m = m * numbers["momentum"] + g * numbers["gain"]
    return w - m * numbers["rate"], (m, *others)


def nesterov(
    w: tf.Tensor,
    g: tf.Tensor,
    moments: Moments,
    numbers: Numbers,
) -> New:
    """The same, looking ahead."""
    m, *others = moments
    g = g + w * numbers["l2"]
    m = m * numbers["momentum"] + g
    direction = g + m * numbers["momentum"]
    return w - direction * numbers["rate"], (m, *others)


def lion(
    w: tf.Tensor,
    g: tf.Tensor,
    moments: Moments,
    numbers: Numbers,
) -> New:
    """Step by the sign of an interpolation (Chen, 2023)."""
    (m, *others), (beta1, gain1) = moments, numbers["first"]
    beta2, gain2 = numbers["second"]
    direction = tf.sign(m * beta1 + g * gain1)
    m = m * beta2 + g * gain2
    return numbers["decay"] * w - direction * numbers[
        "rate"
    ], (
        m,
        *others,
    )


RULES = {
    "sgd": sgd,
    "nesterov": nesterov,
    "adam": adam,
    "adamw": adam,
    "amsgrad": amsgrad,
    "lion": lion,
}


def find_rule(problem: Problem) -> Any:
    """Return the rule, of one example a micro-batch.

    Raises NotImplementedError for what has no bitwise form.
    """
    settings = problem.optimizer
    name = "amsgrad" if settings.amsgrad else settings.name
    name = "nesterov" if settings.nesterov else name
    single = all(
        len(x) == 1 for x, _ in problem.micro_batches
    )
    known = problem.uses_only("learning_rates", "max_norm")
    if not (single and known and name in RULES):
        raise NotImplementedError(
            f"one by one, {[*RULES]} only"
        )
    return RULES[name]
