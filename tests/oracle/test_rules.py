"""The optimizers' rules against their definitions, written out for one number in plain floats."""

import math

import numpy as np
import pytest

from lockstep.oracle.rules import RULES, average, constants, initial_state, sign
from lockstep.oracle.tracked import rounded
from lockstep.problem import Optimizer

GRADIENTS = [0.5, -1.25, 0.0, 2.0]
RATE, DECAY, EPS = 0.25, 0.125, 1e-2


def adamax(p):
    m = u = 0.0
    for t, g in enumerate(GRADIENTS, 1):
        g += DECAY * p
        m, u = 0.9 * m + 0.1 * g, max(0.999 * u, abs(g) + EPS)
        yield (p := p - RATE / (1 - 0.9**t) * m / u)


def nadam(p):
    m, v, product = 0.0, 0.0, 1.0
    mu = [0.9 * (1 - 0.5 * 0.96 ** (t * 0.004)) for t in range(6)]
    for t, g in enumerate(GRADIENTS, 1):
        g += DECAY * p
        product *= mu[t]
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        m_hat = mu[t + 1] * m / (1 - product * mu[t + 1]) + (1 - mu[t]) * g / (1 - product)
        yield (p := p - RATE * m_hat / (math.sqrt(v / (1 - 0.999**t)) + EPS))


def amsgrad(p):
    m = v = largest = 0.0
    for t, g in enumerate(GRADIENTS, 1):
        g += DECAY * p
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        largest = max(largest, v)
        root = math.sqrt(largest / (1 - 0.999**t))
        yield (p := p - RATE * m / (1 - 0.9**t) / (root + EPS))


def rmsprop(p):
    v = mean = buffer = 0.0
    for g in GRADIENTS:
        g += DECAY * p
        v, mean = 0.99 * v + 0.01 * g * g, 0.99 * mean + 0.01 * g
        buffer = 0.5 * buffer + g / (math.sqrt(v - mean * mean) + EPS)
        yield (p := p - RATE * buffer)


def adagrad(p):
    total = 0.5
    for t, g in enumerate(GRADIENTS, 1):
        g += DECAY * p
        total += g * g
        yield (p := p - RATE / (1 + (t - 1) * 0.75) * g / (math.sqrt(total) + EPS))


def adadelta(p):
    v = deltas = 0.0
    for g in GRADIENTS:
        g += DECAY * p
        v = 0.9 * v + 0.1 * g * g
        delta = math.sqrt(deltas + EPS) / math.sqrt(v + EPS) * g
        deltas = 0.9 * deltas + 0.1 * delta * delta
        yield (p := p - RATE * delta)


def lion(p):
    m = 0.0
    for g in GRADIENTS:
        p *= 1 - RATE * DECAY
        yield (p := p - RATE * np.sign(0.9 * m + 0.1 * g))
        m = 0.99 * m + 0.01 * g


def sgd(p):
    buffer = None
    for g in GRADIENTS:
        g += DECAY * p
        buffer = g if buffer is None else 0.5 * buffer + 0.75 * g
        yield (p := p - RATE * buffer)


@pytest.mark.parametrize(
    ("rule", "name", "settings"),
    [
        (adamax, "adamax", {"eps": EPS}),
        (nadam, "nadam", {"eps": EPS}),
        (amsgrad, "adam", {"eps": EPS, "amsgrad": True}),
        (rmsprop, "rmsprop", {"eps": EPS, "centered": True, "momentum": 0.5}),
        (
            adagrad,
            "adagrad",
            {"eps": EPS, "lr_decay": 0.75, "initial_accumulator_value": 0.5},
        ),
        (adadelta, "adadelta", {"eps": EPS}),
        (lion, "lion", {}),
        (sgd, "sgd", {"momentum": 0.5, "dampening": 0.25}),
    ],
)
def test_a_rule_is_its_definition(rule, name, settings) -> None:
    optimizer = Optimizer(name, RATE, weight_decay=DECAY, **settings)
    theta = np.array([[1.5], [1.5]])
    state = initial_state(optimizer, np.zeros((2, 1)))
    for update, (gradient, right) in enumerate(zip(GRADIENTS, rule(1.5), strict=True)):
        numbers = constants(optimizer, RATE, update, [True, True], np.float64)
        array = np.full((2, 1), gradient)
        theta, new = RULES[name](theta, array, state, numbers, optimizer)
        assert new.keys() == state.keys()
        assert theta.ravel().tolist() == pytest.approx([right] * 2, rel=1e-13)
        state = new


@pytest.mark.parametrize("kind", [float, object])
def test_the_sign_of_zero_is_zero(kind) -> None:
    assert sign(np.array([-2.5, 0.0, 3.5], dtype=kind)).tolist() == [-1, 0, 1]


def test_decay_acts_on_the_rows_that_it_is_for() -> None:
    for name, l2, decay in (("adamw", [0, 0], [1 - RATE * DECAY, 1]), ("adam", [DECAY, 0], [1, 1])):
        optimizer = Optimizer(name, RATE, weight_decay=DECAY)
        numbers = constants(optimizer, RATE, 0, [True, False], np.float64)
        assert (numbers["l2"].ravel().tolist(), numbers["decay"].ravel().tolist()) == (l2, decay)


def test_an_average_allows_for_its_other_forms() -> None:
    number = rounded(2.0**-53)
    moment, new = (np.array([number(each)], dtype=object) for each in (1.0, 3.0))
    beta, gain = number(0.75), number(0.25)
    (mixed,), (found,) = moment * beta + new * gain, average(moment, new, (beta, gain))
    assert found.value == mixed.value
    assert found.error == mixed.error + number.unit * 4
