"""What optax's transformations cannot be set to.

Most keep the state of the stock one and read it otherwise.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from optax import GradientTransformation, tree


def scaled(direction: Any, square: Any, eps: float) -> Any:
    """Divide by a root, with eps outside of it."""
    return jax.tree.map(
        lambda d, settings: d / (jnp.sqrt(settings) + eps),
        direction,
        square,
    )


def scale_by_amsgrad(
    b1: float, b2: float, eps: float
) -> GradientTransformation:
    """Take the maximum before the bias correction.

    optax takes it after, or does not correct the bias.
    """
    stock = optax.scale_by_amsgrad(
        b1, b2, bias_correction_nu=False
    )

    def update(g: Any, state: Any, params: Any = None) -> Any:
        _, state = stock.update(g, state)
        m = tree.bias_correction(state.mu, b1, state.count)
        v = tree.bias_correction(
            state.nu_max, b2, state.count
        )
        return scaled(m, v, eps), state

    return GradientTransformation(stock.init, update)


class NadamState(NamedTuple):
    """Adam's state, and the product of the momenta."""

    adam: optax.ScaleByAdamState
    mu_product: Array


def nadam_momentum(b1: float, exponent: Array) -> Array:
    """Return an update's momentum, which grows towards b1."""
    return b1 * (1 - 0.5 * 0.96**exponent)


def scale_by_nadam(
    b1: float, b2: float, eps: float, momentum_decay: float
) -> GradientTransformation:
    """Let the momentum grow; optax's nesterov keeps it."""
    stock = optax.scale_by_adam(b1, b2, eps)

    def init(params: Any) -> NadamState:
        return NadamState(stock.init(params), jnp.ones(()))

    def update(g: Any, state: Any, params: Any = None) -> Any:
        _, adam = stock.update(g, state.adam)
        count, mu = adam.count, partial(nadam_momentum, b1)
        now = mu(count * momentum_decay)
        ahead = mu((count + 1) * momentum_decay)
        product = state.mu_product * now
        g = tree.scale((1 - now) / (1 - product), g)
        m = tree.scale(ahead / (1 - product * ahead), adam.mu)
        v = tree.bias_correction(adam.nu, b2, count)
        direction = scaled(tree.add(g, m), v, eps)
        return direction, NadamState(adam, product)

    return GradientTransformation(init, update)


def scale_by_rss(
    initial_accumulator_value: float, eps: float
) -> GradientTransformation:
    """Add eps outside the root; optax adds it inside."""
    stock = optax.scale_by_rss(initial_accumulator_value)

    def update(g: Any, state: Any, params: Any = None) -> Any:
        _, state = stock.update(g, state)
        return scaled(g, state.sum_of_squares, eps), state

    return GradientTransformation(stock.init, update)
