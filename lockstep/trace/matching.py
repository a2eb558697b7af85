"""Which parameter of one run is which of another's: by the values they start from.

A whole tensor is found up to a permutation of its axes and a change of shape; one that was fused or
split, number by number. Tensors that hold one value alone, which nothing tells apart, go by their
names, and by the company that they keep. Nothing here knows what a trace is.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import permutations
from typing import Any, cast

import numpy as np

from lockstep.trace.added import Added, added, aligned
from lockstep.trace.names import holder, likeness, module, words
from lockstep.trace.pieces import Pieces, beside, in_pieces, without
from lockstep.trace.stacked import Stack, places, stacks

Array = np.ndarray[Any, Any]
# What is drawn twice is farther apart.
CLOSE = 0.5
# Axes of more are not permuted in all ways.
MOST_AXES = 5


@dataclass(frozen=True, eq=False)
class Match:
    """Where the numbers of one side's tensor are on the other side.

    name: the tensor's; shape: its; others: the other side's tensors, of which there are several
    where they were fused; how: in words; axes, order: where it is one whole tensor, of which axes
    its numbers are read, and into which; places: otherwise, the index of each number in the others,
    flat, one after the other.
    """

    name: str
    shape: tuple[int, ...]
    others: tuple[str, ...]
    how: str = ""
    axes: tuple[int, ...] = ()
    order: tuple[int, ...] = ()
    places: Array | None = field(default=None, repr=False)

    def arranged(self, arrays: Sequence[Array], sketched: bool = False) -> Array | None:
        """The other side's arrays as this tensor, or None of a sketch that has another shape.

        A sketch of a tensor whose axes were permuted alone is permuted.
        """
        if self.places is not None:
            if sketched:
                return None
            flat = np.concatenate([each.ravel() for each in arrays])
            return flat[self.places].reshape(self.shape)
        (array,) = arrays
        read = array.transpose(self.axes) if self.axes else array
        shape = [self.shape[axis] for axis in self.order]
        if sketched:
            shape = list(read.shape)
            if len(shape) != len(self.order):
                return None
        if read.size != math.prod(shape):
            return None  # it is another tensor's, which has its name
        return read.reshape(shape).transpose(np.argsort(self.order)) if self.order else read


@dataclass(frozen=True)
class Matching:
    """Which tensor is which.

    matches: by the first side's names; left, other_left: what has no counterpart, by side; nearest:
    of what is left on the first side, the name that looks most like it; copies, own_copies: of what
    is left on the other side, and on the first one, the first side's tensor that it is a copy of;
    free: of the other side's tensors that are matched in part, the flat indices of what is not;
    added, other_added: the biases of which two are one on the other side.
    """

    matches: Mapping[str, Match]
    left: tuple[str, ...] = ()
    other_left: tuple[str, ...] = ()
    nearest: Mapping[str, str] = field(default_factory=dict)
    copies: Mapping[str, str] = field(default_factory=dict)
    own_copies: Mapping[str, str] = field(default_factory=dict)
    free: Mapping[str, Array] = field(default_factory=dict)
    added: Added = field(default_factory=dict)
    other_added: Added = field(default_factory=dict)

    @property
    def in_sums(self) -> frozenset[str]:
        """The biases of which two are one on the other side, and those that are two."""
        pairs = [*self.added.items(), *self.other_added.items()]
        return frozenset(name for both, others in pairs for name in (*both, *others))

    def others(self, names: Iterable[str]) -> tuple[str, ...]:
        """What the other side calls these, as far as they have a counterpart."""
        found = (self.matches[name] for name in names if name in self.matches)
        return tuple(other for match in found for other in match.others)


def matched(
    mine: Mapping[str, Array],
    theirs: Mapping[str, Array],
    given: Mapping[str, str] | None = None,
    hints: tuple[Mapping[str, Array], Mapping[str, Array]] = ({}, {}),
) -> Matching:
    """The tensors of two models that start from the same values.

    given: names that are known to belong together, the first side's to the other's; hints: by
    name, on each side, an array whose direction tells apart what starts from one value, a gradient.
    """
    found: dict[str, Match] = {}
    rest = dict(theirs)
    for name, other in (given or {}).items():
        found[name] = as_given(name, mine[name], other, theirs[other])
        rest.pop(other, None)
    lone = {name: array for name, array in mine.items() if name not in found}
    for name, array in [*lone.items()]:
        candidates = [(o, how) for o, b in rest.items() if (how := same(array, b)) is not None]
        # What begins at one value may be any of several that do.
        sole = len(candidates) == 1 and fits(lone, rest[candidates[0][0]]) == 1
        if sole or (candidates and not constant(array)):
            other, (axes, order) = max(candidates, key=lambda each: likeness(name, each[0]))
            found[name] = whole(name, array, other, theirs[other], axes, order)
            rest.pop(other)
            lone.pop(name)
    for search in (fused, put_together_of, partial(layered, hints=hints)):
        for name, match in list(search(lone, rest)):
            found[name] = match
            lone.pop(name)
            for other in match.others:
                rest.pop(other, None)
    for name, other in by_name(lone, rest, found, hints):
        axes, order = same(lone[name], rest[other]) or ((), ())
        found[name] = whole(name, lone[name], other, rest[other], axes, order)
    left = tuple(name for name in mine if name not in found)
    taken = {other for match in found.values() for other in match.others}
    other_left = tuple(other for other in theirs if other not in taken)
    nearest = {
        name: max(other_left, key=lambda o: (likeness(name, o), o)) for name in left if other_left
    }
    free = free_places(found, theirs)
    copies, own_copies = (
        {
            copy: name
            for copy in names
            for name in found
            if not constant(mine[name]) and same(mine[name], side[copy]) is not None
        }
        for names, side in ((other_left, theirs), (left, mine))
    )
    whole_ones = [(name, match.others) for name, match in found.items()]
    sums = added(mine, left, theirs, other_left, whole_ones, hints[0])
    turned = [(others[0], (name,)) for name, others in whole_ones if len(others) == 1]
    other_sums = added(theirs, other_left, mine, left, turned, hints[1])
    matches = {name: found[name] for name in mine if name in found}
    return Matching(matches, left, other_left, nearest, copies, own_copies, free, sums, other_sums)


def fits(mine: Mapping[str, Array], other: Array) -> int:
    """How many tensors another one may be."""
    return sum(same(array, other) is not None for array in mine.values())


def changed_by(mine: Mapping[str, Array], theirs: Mapping[str, Array]) -> float | None:
    """How far apart two models are, of a tensor's norm, where all are the same but for a little."""
    most = 0.0
    for array in mine.values():
        if array.any():
            near = (apart(array, other) for other in theirs.values() if other.size == array.size)
            least = next((each for each in near if each < CLOSE), None)
            if least is None:
                return None
            most = max(most, least)
    return most or None


def apart(mine: Array, theirs: Array) -> float:
    """How far two arrays of one size are apart, of the first one's norm, as they fit best."""
    axes = permutations(range(theirs.ndim)) if theirs.ndim <= MOST_AXES else [range(theirs.ndim)]
    straight = mine.ravel()
    rest = min(np.linalg.norm(theirs.transpose(each).ravel() - straight) for each in axes)
    return float(rest / np.linalg.norm(straight))


def constant(array: Array) -> bool:
    """Whether an array holds one value alone."""
    return bool((array == array.flat[0]).all())


def equal(one: Array, other: Array) -> bool:
    """Whether the values are the same, as the coarser of both can hold them."""
    return np.array_equal(one, other) or np.array_equal(
        one.astype(np.float32), other.astype(np.float32)
    )


def same(mine: Array, theirs: Array) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The axes of the other array, and of mine, along which both read alike; None if none do."""
    if mine.size != theirs.size or mine.ndim > MOST_AXES or theirs.ndim > MOST_AXES:
        return None
    if not np.isclose(mine.sum(), theirs.sum(), rtol=1e-4, atol=1e-4 * abs(mine).sum()):
        return None
    if constant(mine):
        return constant_axes(mine, theirs)
    straight = tuple(range(mine.ndim))
    for axes in permutations(range(theirs.ndim)):
        read = theirs.transpose(axes)
        if read.flat[0] != mine.flat[0] and not equal(read.flat[:1], mine.flat[:1]):
            continue
        if equal(read.reshape(-1), mine.reshape(-1)):
            return axes, straight
    for order in permutations(range(mine.ndim)):
        read = mine.transpose(order).reshape(-1)
        for axes in permutations(range(theirs.ndim)):
            if equal(theirs.transpose(axes).reshape(-1), read):
                return axes, order
    return None


def constant_axes(mine: Array, theirs: Array) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The axes along which the shapes of arrays of one value fit best; None of another value."""
    if not constant(theirs) or not equal(mine.flat[:1], theirs.flat[:1]):
        return None
    straight = tuple(range(mine.ndim))
    for axes in permutations(range(theirs.ndim)):
        if tuple(theirs.shape[axis] for axis in axes) == mine.shape:
            return axes, straight
    return tuple(range(theirs.ndim)), straight


def whole(
    name: str,
    mine: Array,
    other: str,
    theirs: Array,
    axes: tuple[int, ...],
    order: tuple[int, ...],
) -> Match:
    """A tensor that is another one, whole."""
    permuted = tuple(axes) != tuple(range(theirs.ndim)) or tuple(order) != tuple(range(mine.ndim))
    how = []
    if permuted:
        how.append("transposed")
    if sorted(mine.shape) != sorted(theirs.shape):
        how.append(f"of shape {theirs.shape}")
    return Match(name, mine.shape, (other,), ", ".join(how), tuple(axes), tuple(order))


def as_given(name: str, mine: Array, other: str, theirs: Array) -> Match:
    """A tensor whose counterpart somebody named; its axes are those that make the shapes fit."""
    if (found := same(mine, theirs)) is not None:
        return whole(name, mine, other, theirs, *found)
    for axes in permutations(range(theirs.ndim)):
        if tuple(theirs.shape[axis] for axis in axes) == mine.shape:
            return whole(name, mine, other, theirs, axes, tuple(range(mine.ndim)))
    straight = tuple(range(theirs.ndim)), tuple(range(mine.ndim))
    return whole(name, mine, other, theirs, *straight)


def fused(mine: Mapping[str, Array], theirs: Mapping[str, Array]) -> Iterator[tuple[str, Match]]:
    """The tensors that are fused of several, or a part of one; and what stands beside them.

    A bias is fused, or split, as the weight is that stands in the same module: its own numbers are
    few, and may all be one.
    """
    drawn, others = (
        {name: array for name, array in side.items() if not constant(array)}
        for side in (mine, theirs)
    )
    weights = dict(in_pieces(drawn, others))
    found = dict(weights)
    for bias, array in mine.items():
        near = [name for name in weights if holder(name) == holder(bias)]
        if near and bias not in found:
            name = max(near, key=lambda each: likeness(each, bias))
            more = bias_pieces(mine[name], array, weights[name], theirs)
            if more is not None:
                found[bias] = more
    matches = {}
    for name, pieces in found.items():
        every = sum(theirs[other].size for other in pieces.others) == mine[name].size
        how = "fused" if len(pieces.others) > 1 and every else "in pieces"
        matches[name] = Match(name, mine[name].shape, pieces.others, how, places=pieces.places)
    yield from matches.items()
    yield from next_to(mine, matches, theirs)


def next_to(
    mine: Mapping[str, Array], found: Mapping[str, Match], theirs: Mapping[str, Array]
) -> Iterator[tuple[str, Match]]:
    """The tensors of one value that are what is left of others, in the order of what is there.

    Keras has both biases of a GRU in one tensor, of which one may be drawn and one begin at 0.
    """
    lone = [name for name in mine if name not in found and constant(mine[name])]
    for other, free in free_places(found, theirs).items():
        flat = theirs[other].ravel()
        for match in [each for each in found.values() if each.others == (other,)]:
            shifted = cast(Array, match.places) + (free.min() - cast(Array, match.places).min())
            names = [
                name
                for name in lone
                if mine[name].shape == match.shape and equal(flat[free], mine[name].ravel())
            ]
            if names and np.array_equal(np.sort(shifted), free):
                name = max(names, key=partial(likeness, match.name))
                lone.remove(name)
                yield name, Match(name, match.shape, (other,), "in pieces", places=shifted)
                break


def free_places(found: Mapping[str, Match], theirs: Mapping[str, Array]) -> dict[str, Array]:
    """The flat indices of the numbers that are not matched, in tensors of which others are."""
    taken: dict[str, Array] = {}
    for match in found.values():
        if match.places is None:
            continue
        begin = 0
        for other in match.others:
            size = theirs[other].size
            held = taken.setdefault(other, np.zeros(size, bool))
            at = match.places - begin
            held[at[(at >= 0) & (at < size)]] = True
            begin += size
    return {other: np.flatnonzero(~held) for other, held in taken.items() if not held.all()}


def put_together_of(
    mine: Mapping[str, Array], theirs: Mapping[str, Array]
) -> Iterator[tuple[str, Match]]:
    """The tensors that are several of the other side's, some of which hold one value alone."""
    pieces: dict[str, list[Match]] = defaultdict(list)
    for _, match in fused(theirs, mine):
        if len(match.others) == 1:
            pieces[match.others[0]].append(match)
    for name, each in pieces.items():
        places = np.concatenate([cast(Array, match.places).ravel() for match in each])
        if np.array_equal(np.sort(places), np.arange(mine[name].size)):
            others = tuple(match.name for match in each)
            how = "fused" if len(others) > 1 else "in pieces"
            yield name, Match(name, mine[name].shape, others, how, places=np.argsort(places))


def layered(
    mine: Mapping[str, Array],
    theirs: Mapping[str, Array],
    hints: tuple[Mapping[str, Array], Mapping[str, Array]],
) -> Iterator[tuple[str, Match]]:
    """The tensors of one value that are those of several layers, or of one of them."""

    def score(stack: Stack, own: int) -> float:
        known = hints[own].get(stack.name)
        each = [hints[1 - own].get(layer) for layer in stack.layers]
        layers = [array for array in each if array is not None]
        whole = np.stack(layers, stack.axis) if len(layers) == len(each) else None
        return aligned(known, whole) + likeness(stack.name, stack.layers[0])

    for stack in stacks(mine, theirs, partial(score, own=0)):
        shape = mine[stack.name].shape
        order = np.argsort(places(shape, stack.axis).ravel())
        yield stack.name, Match(stack.name, shape, stack.layers, "fused", places=order)
    for stack in stacks(theirs, mine, partial(score, own=1)):
        every = places(theirs[stack.name].shape, stack.axis)
        for name, own in zip(stack.layers, every, strict=True):
            yield name, Match(name, mine[name].shape, (stack.name,), "in pieces", places=own)


def bias_pieces(
    weight: Array, bias: Array, pieces: Pieces, theirs: Mapping[str, Array]
) -> Pieces | None:
    """Where the numbers of a bias are, beside those of its weight; None where they are others."""
    others, weights = [], [theirs[other].shape for other in pieces.others]
    for other, shape in zip(pieces.others, weights, strict=True):
        held = [o for o in theirs if holder(o) == holder(other) and without(shape, theirs[o].shape)]
        if not held:
            return None
        others.append(max(held, key=partial(likeness, other)))
    shapes = [theirs[other].shape for other in others]
    places = beside(weight.shape, bias.shape, pieces, weights, shapes)
    if places is None:
        return None
    numbers = np.concatenate([theirs[other].ravel() for other in others])[places]
    return Pieces(tuple(others), places) if equal(numbers, bias.ravel()) else None


def by_name(
    mine: Mapping[str, Array],
    theirs: Mapping[str, Array],
    known: Mapping[str, Match],
    hints: tuple[Mapping[str, Array], Mapping[str, Array]],
) -> Iterator[tuple[str, str]]:
    """Tensors of one value: by a hint, the module that they stand in, their name, their place."""
    company = defaultdict(float)
    for name, match in known.items():
        for other in match.others:
            company[module(name), module(other)] = 1.0

    def score(name: str, other: str) -> float:
        kind = words(name)[-1:] == words(other)[-1:]
        hint = aligned(hints[0].get(name), hints[1].get(other))
        return hint + 2 * company[module(name), module(other)] + kind + likeness(name, other)

    groups: dict[Any, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for side, arrays in enumerate((mine, theirs)):
        for name, array in arrays.items():
            if constant(array):
                key = float(np.float32(array.flat[0])), array.size
                groups[key][side].append(name)
    for names, others in groups.values():
        position = {n: i / len(names) for i, n in enumerate(names)}
        their_position = {o: i / len(others) for i, o in enumerate(others)}
        pairs = sorted(
            ((score(n, o) - 0.01 * abs(position[n] - their_position[o]), n, o)
             for n in names for o in others),
            key=lambda each: -each[0],
        )  # fmt: skip
        done: set[str] = set()
        taken: set[str] = set()
        for _, name, other in pairs:
            if name not in done and other not in taken:
                done.add(name)
                taken.add(other)
                yield name, other
