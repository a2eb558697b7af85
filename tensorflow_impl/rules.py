"""Optimizers in elementary operations, one rounding each.

Multiplying by a constant rounds alike everywhere; dividing
by one does not.
"""

from typing import Any

import tensorflow as tf

from .adam import Moments, New, adam, amsgrad
from .constants import Numbers
from .data import Parameters


def zeros(parameters: Parameters) -> list[Moments]:
    """Return zeros for the moments of every parameter."""
    return [(tf.zeros_like(p),) * 3 for p in parameters]


def sgd(
    w: tf.Tensor, g: tf.Tensor, moments: Moments, s: Numbers
) -> New:
    """Descend with momentum and coupled weight decay."""
    m, *others = moments
    g = g + w * s["l2"]
    m = m * s["momentum"] + g * s["gain"]
    return w - m * s["rate"], (m, *others)


def nesterov(
    w: tf.Tensor, g: tf.Tensor, moments: Moments, s: Numbers
) -> New:
    """The same, looking ahead."""
    m, *others = moments
    g = g + w * s["l2"]
    m = m * s["momentum"] + g
    direction = g + m * s["momentum"]
    return w - direction * s["rate"], (m, *others)


def lion(
    w: tf.Tensor, g: tf.Tensor, moments: Moments, s: Numbers
) -> New:
    """Step by the sign of an interpolation (Chen, 2023)."""
    (m, *others), (beta1, gain1) = moments, s["first"]
    beta2, gain2 = s["second"]
    direction = tf.sign(m * beta1 + g * gain1)
    m = m * beta2 + g * gain2
    return s["decay"] * w - direction * s["rate"], (
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


def find_rule(problem: Any) -> Any:
    """Return the rule, of one example a micro-batch.

    Raises NotImplementedError for what has no bitwise form.
    """
    s = problem.optimizer
    name = "amsgrad" if s.amsgrad else s.name
    name = "nesterov" if s.nesterov else name
    single = all(
        len(x) == 1 for x, _ in problem.micro_batches
    )
    known = problem.uses_only("learning_rates", "max_norm")
    if not (single and known and name in RULES):
        raise NotImplementedError(
            f"one by one, {[*RULES]} only"
        )
    return RULES[name]
