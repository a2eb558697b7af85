"""Where the windows of a convolution lie, and what is around its input, by what it makes of it.

PyTorch pads both sides alike. SAME, in TensorFlow and JAX, pads the end by one more where what is
needed is odd, as it is for a stride of 2 and an even length: all windows lie elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, Literal, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
# What is around an input, by numpy.pad's names.
Around = Literal["constant", "edge", "reflect", "wrap"]
AROUND: dict[Around, str] = {
    "constant": "zeros", "edge": "its edge", "reflect": "its reflection", "wrap": "its other end",
}  # fmt: skip
# How many places are made at once.
PLACES = 1024


class Windows(NamedTuple):
    """A form of convolution: along each axis the stride and how far the first window begins ahead
    of the input; what is around it.
    """

    strides: tuple[int, ...]
    ahead: tuple[int, ...]
    around: Around


def channels_first(x: Array, kernel: Array, y: Array) -> tuple[Array, Array, Array] | None:
    """A convolution's arrays with their channels first, from either order; None if it is none.

    x, y: (examples, channels, *places); kernel: (channels out, channels in of a group, *width).
    """
    if x.ndim != kernel.ndim or y.ndim != kernel.ndim or kernel.ndim < 3:
        return None
    last = [np.moveaxis(each, -1, 1) for each in (x, y)]
    turned = np.moveaxis(kernel, (-1, -2), (0, 1))
    for given, weights, made in ((x, kernel, y), (last[0], turned, last[1])):
        out, into = weights.shape[:2]
        groups = given.shape[1] // into
        if groups * into == given.shape[1] and made.shape[1] == out and out % max(groups, 1) == 0:
            return given, weights, made
    return None


def windows(x: Array, kernel: Array, y: Array, floor: float) -> Iterator[Windows]:
    """The forms that make one array of another, of the first example.

    Channels come first; floor: how far the array may be off, of its norm.
    """
    (given, *_), (got, *_) = x, y
    bound = floor * np.linalg.norm(got)
    every = np.indices(got.shape[1:]).reshape(got.ndim - 1, -1)
    ends = (every == 0) | (every == np.subtract(got.shape[1:], 1)[:, None])
    corners = every[:, ends.all(axis=0)]
    wide = [size - 1 for size in kernel.shape[2:]]

    def makes(form: Windows, places: Array) -> bool:
        at = slice(None), *places
        return bool(np.linalg.norm(made(padded, kernel, form, places) - got[at]) <= bound)

    for around in AROUND:
        if around == "reflect" and np.any(np.greater_equal(wide, given.shape[1:])):
            continue  # a reflection is shorter than what it is of
        padded = np.pad(given, [(0, 0), *((w, w) for w in wide)], around)
        for each in product(*map(steps, given.shape[1:], kernel.shape[2:], got.shape[1:])):
            strides, ahead = zip(*each, strict=True)
            form = Windows(strides, ahead, around)
            if makes(form, corners) and makes(form, every):
                yield form


def steps(length: int, width: int, out: int) -> list[tuple[int, int]]:
    """The strides, and how far ahead the first window begins, that make a length of another."""
    strides = range(1, length + 1) if out > 1 else (length,)
    return [
        (stride, ahead)
        for stride, ahead in product(strides, range(width))
        if -stride < (out - 1) * stride + width - length - ahead < width
    ]


def made(padded: Array, kernel: Array, form: Windows, places: Array) -> Array:
    """What a convolution makes at some places: (channels, places).

    padded: (channels, *places) with as much around as a window is wide, less one.
    """
    out, into, *width = kernel.shape
    groups = len(padded) // into
    weights = kernel.reshape(groups, out // groups, -1)
    found = []
    for some in np.array_split(places, range(PLACES, places.shape[1], PLACES), axis=1):
        index: list[Any] = [slice(None)]
        for axis, size in enumerate(width):
            begins = some[axis] * form.strides[axis] - form.ahead[axis] + size - 1
            along = [size if each == axis else 1 for each in range(len(width))]
            index.append(begins.reshape(-1, *(1 for _ in width)) + np.arange(size).reshape(along))
        seen = padded[tuple(index)].swapaxes(0, 1).reshape(some.shape[1], groups, -1)
        found.append((weights @ seen.transpose(1, 2, 0)).reshape(out, -1))
    return np.concatenate(found, axis=1)
