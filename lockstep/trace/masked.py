"""Gradients of which some numbers are emptied, and the others are as they were.

The row of an embedding that stands for padding has none in PyTorch; those of a vocabulary that was
there before are emptied by hand, so that only new ones learn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from lockstep.trace.findings import listed
from lockstep.trace.reading import Array
from lockstep.trace.whole import squared

# What it is called, wherever it is done.
MASKED = "masked-gradient"


class Mask(NamedTuple):
    """How many numbers of a gradient were emptied, of how many, and in which of its rows.

    factor: what the others were multiplied with.
    """

    numbers: int
    of: int
    rows: tuple[int, ...]
    length: int
    factor: float

    def __str__(self) -> str:
        which = ", ".join(map(str, self.rows[:3])) + (", …" if len(self.rows) > 3 else "")
        row = "row" if len(self.rows) == 1 else "rows"
        return f"{self.numbers} of {self.of}, in {row} {which} of {self.length}"


def mask_of(both: Iterable[tuple[Array, Array]], rounding: float) -> Mask | None:
    """What was emptied in the second of two gradients that are one, but for a factor and rounding.

    both: parts of each, of some rows, which are gone through twice. None where nothing was emptied,
    all was, or anything else is different.
    """
    numbers = of = begin = 0
    rows, mixed, size = list[int](), 0.0, 0.0
    for first, second in both:
        emptied = (second == 0) & (first != 0)
        numbers, of = numbers + int(emptied.sum()), of + first.size
        rows += (begin + np.flatnonzero(emptied.reshape(len(first), -1).any(axis=1))).tolist()
        begin += len(first)
        kept = first[second != 0]
        mixed, size = mixed + float(kept @ second[second != 0]), size + squared(kept)
    if not numbers or not size:
        return None
    factor, apart, whole = mixed / size, 0.0, 0.0
    for first, second in both:
        apart += squared(np.where(second == 0, 0, second - factor * first))
        whole += squared(second)
    if apart > rounding**2 * whole:
        return None
    return Mask(numbers, of, tuple(rows), begin, factor)


def masked_words(masks: Mapping[str, Mask]) -> str:
    """What was emptied, and what was not."""
    each = [f"{name} ({mask})" for name, mask in masks.items()]
    return f"numbers of gradients are emptied, and no others change: {listed(each)}"
