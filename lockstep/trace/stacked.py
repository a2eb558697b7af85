"""Layers of one kind whose parameters are one tensor in one model, and a tensor each in the other.

A compiled loop over layers has them so, as `jax.lax.scan`. What was drawn is found by its numbers;
what begins at one value, as a norm's scale, by names that count its layers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from lockstep.trace.pieces import without

Array = np.ndarray[Any, Any]


class Stack(NamedTuple):
    """A tensor, the axis along which layers stand in it, and the other side's tensors of these."""

    name: str
    axis: int
    layers: tuple[str, ...]


def stacks(
    one: Mapping[str, Array],
    other: Mapping[str, Array],
    score: Callable[[Stack], float],
) -> Iterator[Stack]:
    """The tensors of one value that are stacks of the other side's, the likeliest first."""
    possible = [
        Stack(name, axis, layers)
        for layers in counted(other)
        for name, array in one.items()
        for axis, length in enumerate(array.shape)
        if length == len(layers) and (array == array.flat[0]).all()
        if all(
            axis in without(array.shape, other[each].shape) and (other[each] == array.flat[0]).all()
            for each in layers
        )
    ]
    taken: set[str] = set()
    for stack in sorted(possible, key=score, reverse=True):
        if not taken & {stack.name, *stack.layers}:
            taken |= {stack.name, *stack.layers}
            yield stack


def counted(names: Mapping[str, Array]) -> Iterator[tuple[str, ...]]:
    """The names that are one but for a number, which counts from 0 or 1: in its order."""
    found: dict[tuple[str, str], dict[int, str]] = {}
    for name in names:
        for number in re.finditer(r"\d+", name):
            key = name[: number.start()], name[number.end() :]
            found.setdefault(key, {})[int(number[0])] = name
    for layers in found.values():
        order = sorted(layers)
        if len(order) > 1 and order[0] < 2 and order[-1] - order[0] == len(order) - 1:
            yield tuple(layers[number] for number in order)


def places(shape: tuple[int, ...], axis: int) -> Array:
    """Where each layer's numbers are in a stack of a shape, flat: (layers, numbers)."""
    every = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    return np.moveaxis(every, axis, 0).reshape(shape[axis], -1)
