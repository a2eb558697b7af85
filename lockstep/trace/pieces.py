"""Where the numbers of a tensor that was fused, or split, are in the tensors of another model.

Numbers that both sides have once show of which tensor each part is, and which axis of one follows
from which axis of the other. The rest follows from that: of a million numbers some are equal by
chance, and of a bias that begins at one value all are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]


class Pieces(NamedTuple):
    """The other side's tensors, and the index of each number in them, flat, one after the other."""

    others: tuple[str, ...]
    places: Array


def in_pieces(
    mine: Mapping[str, Array], theirs: Mapping[str, Array]
) -> Iterator[tuple[str, Pieces]]:
    """The tensors of which each number is on the other side, in blocks of several or of one."""
    if not mine or not theirs:
        return
    names = tuple(theirs)
    values = np.concatenate([theirs[name].astype(np.float32).ravel() for name in names])
    begins = begin_at(theirs[name].shape for name in names)
    known, places = once(values)
    if not known.size:
        return
    for name, array in mine.items():
        numbers, index = once(array.astype(np.float32).ravel())
        at = np.searchsorted(known, numbers).clip(max=known.size - 1)
        here, there = index[known[at] == numbers], places[at[known[at] == numbers]]
        owner = np.searchsorted(begins, there, side="right") - 1
        blocks = {
            names[i]: block(
                array, here[owner == i], theirs[names[i]], there[owner == i] - begins[i]
            )
            for i in np.unique(owner)
        }
        found = put_together(array.size, {o: b for o, b in blocks.items() if b is not None}, theirs)
        if found is not None:
            yield name, found


def once(values: Array) -> tuple[Array, Array]:
    """The numbers that stand once among some, in order, and their indices."""
    order = np.argsort(values)
    values = values[order]
    apart = np.concatenate([[True], values[1:] != values[:-1], [True]])
    alone = apart[1:] & apart[:-1]
    return values[alone], order[alone]


def put_together(
    size: int, blocks: Mapping[str, tuple[Array, Array]], theirs: Mapping[str, Array]
) -> Pieces | None:
    """All of a tensor, from blocks of it; None unless they are all of it, and each once."""
    places, begin = np.full(size, -1), 0
    for other, (here, there) in blocks.items():
        if (places[here] >= 0).any():
            return None
        places[here] = begin + there
        begin += theirs[other].size
    return Pieces(tuple(blocks), places) if begin and (places >= 0).all() else None


def block(mine: Array, here: Array, theirs: Array, there: Array) -> tuple[Array, Array] | None:
    """The indices of a block in one tensor, and of the same numbers in another, both flat.

    here, there: those of numbers that are known to be the same ones. None where they show no block.
    """
    one = np.unravel_index(here, mine.shape)
    other = np.unravel_index(there, theirs.shape)
    for sides in ((one, other), (other, one)):
        found = followed(*sides)
        if found is None:
            continue
        grids = [np.ix_(*map(distinct, sides[0])), found]
        left, right = grids if sides[0] is one else grids[::-1]
        both = flat(mine.shape, left), flat(theirs.shape, right)
        numbers, others = mine.ravel()[both[0]], theirs.ravel()[both[1]]
        if np.array_equal(numbers.astype(np.float32), others.astype(np.float32)):
            return both
    return None


def followed(from_: Sequence[Array], to: Sequence[Array]) -> tuple[Array, ...] | None:
    """The indices along the axes of one tensor, for a block of another, from those of some numbers.

    Each must follow from the index along one axis of the other; None where one does not.
    """
    found = []
    each = [distinct(index) for index in from_]
    for index in to:
        # Along an axis of few indices there are many numbers of each: nothing follows by chance.
        for axis in sorted(range(len(from_)), key=lambda axis: len(each[axis])):
            follows = np.zeros(each[axis][-1] + 1, index.dtype)
            follows[from_[axis]] = index
            if (follows[from_[axis]] == index).all():
                shape = [1] * len(from_)
                shape[axis] = len(each[axis])
                found.append(follows[each[axis]].reshape(shape))
                break
        else:
            return None
    return tuple(found)


def distinct(indices: Array) -> Array:
    """Some indices of an axis, each once, in order."""
    return np.flatnonzero(np.bincount(indices))


def flat(shape: Shape, grid: Sequence[Array]) -> Array:
    """The flat indices of a block whose indices along each axis are these."""
    return np.ravel_multi_index(np.broadcast_arrays(*grid), shape).ravel()


def beside(
    shape: Shape, own: Shape, pieces: Pieces, shapes: Sequence[Shape], others: Sequence[Shape]
) -> Array | None:
    """Where the numbers of a bias are, by where those of its weight are; None if it is no bias.

    own: the bias' shape, beside a weight of `shape`; shapes, others: of the weights that have the
    weight's numbers, and of the biases beside these. A bias has all axes of its weight but one.
    """
    begins, places = begin_at(shapes), begin_at(others)
    for axis in without(shape, own):
        line = pieces.places.reshape(shape).take(0, axis=axis).ravel()
        owner = np.searchsorted(begins, line, side="right") - 1
        found = np.full(line.size, -1)
        for i, (weight, bias) in enumerate(zip(shapes, others, strict=True)):
            index = np.array(np.unravel_index(line[owner == i] - begins[i], weight))
            for dropped in without(weight, bias):
                if (index[dropped] == index[dropped][:1]).all():
                    kept = np.delete(index, dropped, axis=0)
                    found[owner == i] = places[i] + np.ravel_multi_index(tuple(kept), bias)
        if (found >= 0).all() and len(np.unique(found)) == len(found):
            return found
    return None


def begin_at(shapes: Iterable[Shape]) -> Array:
    """The index at which each of several tensors begins, flat, one after the other."""
    return np.cumsum([0, *(math.prod(shape) for shape in shapes)])[:-1]


def without(shape: Shape, less: Shape) -> list[int]:
    """The axes without which a shape is another one."""
    return [axis for axis in range(len(shape)) if shape[:axis] + shape[axis + 1 :] == less]
