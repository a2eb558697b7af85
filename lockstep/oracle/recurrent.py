"""The oracle of the recurrent network: back-propagation through time by hand, at any precision.

The network is Elman's (Finding structure in time, Cognitive Science 14, 1990):

    h_t = tanh(x_t U + h_(t-1) V + c),   loss = sum over t of |h_t W + b - y_t|^2 / pairs.

Its gradient is derived in Werbos, Backpropagation through time: what it does and how to do it
(Proceedings of the IEEE 78, 1990). With a_t the argument of tanh, and d for "gradient of the loss
with respect to",

    da_t = (2 (h_t W + b - y_t) / pairs W' + da_(t+1) V') (1 - h_t^2),

and the weights collect x_t' da_t, h_(t-1)' da_t and so on, over all time steps and examples. The
truncated form leaves out da_(t+1) at the end of a chunk (Williams and Peng, An efficient
gradient-based algorithm for on-line training of recurrent network trajectories, Neural
Computation 2, 1990; theirs moves the window by less than its length).

No code is shared with the implementation folders, and nothing is differentiated automatically.
The arrays hold numbers of any kind: mpmath's, fractions, or `Rounded` ones, which bring the bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np

from lockstep.oracle.loop import DIGITS
from lockstep.oracle.tracked import FORMS, Rounded, rounded
from lockstep.problem import Array

# A context of its own, so that nobody else's precision changes.
MP = mpmath.MPContext()
MP.dps = DIGITS
# How many roundings' error a library's tanh may have. No library promises a figure: this is twice
# what TensorFlow's, a rational function of degree 19, shows. The tests measure all three.
TANH = 16

Weights = Sequence[Array]  # U, V, c, W, b
Sum = Callable[[Array], Array]


@dataclass(frozen=True)
class Recurrent:
    """A recurrent network and the sequence that it is to learn; all arrays have one dtype.

    U: (features, units); V: (units, units); c: (units,); W: (units, outputs); b: (outputs,).
    x: (time steps, examples, features); y: (time steps, examples, outputs).
    h: (examples, units), the hidden state before the first time step.
    pairs: by how many (time step, example) pairs the squared error is divided.
    length: the time steps of a chunk, None for a gradient that is not truncated.
    """

    U: Array
    V: Array
    c: Array
    W: Array
    b: Array
    x: Array
    y: Array
    h: Array
    pairs: int
    length: int | None = None

    @property
    def weights(self) -> Weights:
        """U, V, c, W and b."""
        return self.U, self.V, self.c, self.W, self.b


def in_order(terms: Array) -> Array:
    """The sum over the first axis."""
    return terms.sum(axis=0)


def in_any_order(terms: Array) -> Array:
    """The sum of `Rounded` numbers over the first axis, whoever chooses the order.

    A sum from left to right is in error by a rounding of each of its partial sums. Another order
    has other partial sums, and where terms cancel, these are larger. But none is larger than the
    sum of the absolute values, and n terms take n - 1 additions, so that (n - 1) u sum |term|
    bounds them all (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., (4.4)), with
    or without fused multiply-add. An addition is one rounding, in whatever form.
    """

    def total(column: Array) -> Rounded:
        number = type(column[0])
        size = math.fsum(abs(term.value) + term.error for term in column)
        error = math.fsum(term.error for term in column)
        error += (len(column) - 1) * number.unit / FORMS * size
        return number(math.fsum(term.value for term in column), error)

    columns = terms.reshape(len(terms), -1).T
    sums = np.empty(len(columns), dtype=object)
    sums[:] = [total(column) for column in columns]
    return sums.reshape(terms.shape[1:])


def products(left: Array, right: Array) -> Array:
    """The terms of left @ right, (inner, rows, columns)."""
    return left.T[:, :, None] * right[:, None, :]


def outer(left: Array, right: Array) -> Array:
    """The terms of left.T @ right, (examples, columns of left, columns of right)."""
    return left[:, :, None] * right[:, None, :]


def tanh_of_number(a: Any) -> Any:
    """The hyperbolic tangent of one number; a fraction has one at 0 only, or raises ValueError."""
    if isinstance(a, Rounded):
        value, least = math.tanh(a.value), math.tanh(max(abs(a.value) - a.error, 0.0))
        # What is wrong with a is scaled by the slope, which is largest where |a| is smallest.
        return type(a)(value, (1 - least**2) * a.error + TANH / FORMS * a.unit * abs(value))
    if isinstance(a, Fraction):
        if a:
            raise ValueError(f"tanh({a}) is no fraction")
        return a
    return MP.tanh(a)


tanh = np.frompyfunc(tanh_of_number, 1, 1)


def hidden_states(copies: Sequence[Weights], x: Array, h: Array, total: Sum) -> list[Array]:
    """h_0, which is given, to h_T, each (examples, units); time step t uses copies[t - 1]."""
    states = [h]
    for (U, V, c, _, _), x_t in zip(copies, x, strict=True):
        bias = np.broadcast_to(c, (1, len(x_t), len(c)))
        terms = [products(x_t, U), products(states[-1], V), bias]
        states.append(tanh(total(np.concatenate(terms))))
    return states


def prediction_error(weights: Weights, h: Array, y: Array, total: Sum) -> Array:
    """h W + b - y of one time step, (examples, outputs)."""
    *_, W, b = weights
    bias = np.broadcast_to(b, (1, len(h), len(b)))
    return total(np.concatenate([products(h, W), bias, -y[None]]))


def loss(problem: Recurrent, copies: Sequence[Weights]) -> Any:
    """The squared error, per pair, where every time step has a copy of the weights."""
    states = hidden_states(copies, problem.x, problem.h, in_order)
    errors = [
        prediction_error(weights, h, y, in_order)
        for weights, h, y in zip(copies, states[1:], problem.y, strict=True)
    ]
    return sum((error * error).sum() for error in errors) / problem.pairs


def contributions(problem: Recurrent, total: Sum = in_order) -> tuple[list[list[Array]], Array]:
    """What each time step contributes to the gradient, and the last hidden state.

    contributions[t][i] is (examples, *shape of weight i): summed over the examples, the gradient
    with respect to the copy of the weight that time step t + 1 would use if each had its own.
    """
    _, V, _, W, _ = problem.weights
    states = hidden_states([problem.weights] * len(problem.x), problem.x, problem.h, total)
    length = problem.length or len(problem.x)
    parts: list[list[Array]] = []
    da: Any = None
    for t in reversed(range(len(problem.x))):
        before, h = states[t : t + 2]
        error = prediction_error(problem.weights, h, problem.y[t], total)
        dp = error * 2 / problem.pairs
        paths = [products(dp, W.T)]
        if (t + 1) % length and t + 1 < len(problem.x):
            paths.append(products(da, V.T))
        # JAX writes (g + g h)(1 - h), in error by at most 3.2 u |g|: inside what FORMS allows.
        da = total(np.concatenate(paths)) * (1 - h * h)
        parts.append([outer(problem.x[t], da), outer(before, da), da, outer(h, dp), dp])
    return parts[::-1], states[-1]


def gradient(problem: Recurrent, total: Sum = in_order) -> list[Array]:
    """U, V, c, W and b's gradients, of their shapes, and the last hidden state.

    A weight's is one sum over all time steps and examples.
    """
    parts, h = contributions(problem, total)
    return [*(total(np.concatenate(terms)) for terms in zip(*parts, strict=True)), h]


def cast(problem: Recurrent, number: Callable[[float], Any]) -> Recurrent:
    """The same problem in another kind of number, in object arrays."""
    convert = np.frompyfunc(number, 1, 1)
    arrays = {
        name: convert(value.astype(np.float64).astype(object))
        for name, value in vars(problem).items()
        if isinstance(value, np.ndarray)
    }
    return replace(problem, **arrays)


def exact(problem: Recurrent) -> list[Array]:
    """`gradient` to 60 digits, as fractions, in which the comparison computes."""
    return [fractions(array) for array in gradient(cast(problem, MP.mpf))]


def fractions(array: Array) -> Array:
    """mpmath's numbers as fractions, which they are."""
    return np.frompyfunc(lambda a: Fraction(*mpmath.libmp.to_rational(a._mpf_)), 1, 1)(array)


def errors(array: Array) -> Array:
    """The bounds that `Rounded` numbers carry."""
    return np.frompyfunc(lambda a: a.error, 1, 1)(array).astype(np.float64)


def bounds(problem: Recurrent) -> list[Array]:
    """How far rounding in the problem's dtype can take each number of `gradient`, at most.

    `gradient` itself, run on numbers that carry the bound; barring underflow.
    """
    unit = float(np.finfo(problem.x.dtype).eps) / 2
    found = gradient(cast(problem, rounded(unit)), in_any_order)
    return [errors(array) for array in found]
