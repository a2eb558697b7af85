"""Two biases that are added, where another model has one: each moves, and their sum twice as far.

PyTorch has two of them in each cell of an LSTM, Keras and flax one.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np

from lockstep.trace.findings import Finding, listed
from lockstep.trace.names import holder
from lockstep.trace.pieces import in_pieces

Array = np.ndarray[Any, Any]
# By the names of two tensors, those of the other side that their sum is.
Added = Mapping[tuple[str, str], tuple[str, ...]]
NAME = "two biases"
# To how many digits two gradients are the same one, and of how many numbers that says it.
DIGITS, FEWEST = 5, 4
# Of so many pairs and more somebody should name those that belong together.
MOST = 1000


def added(
    mine: Mapping[str, Array],
    left: Collection[str],
    theirs: Mapping[str, Array],
    other_left: Collection[str],
    known: Iterable[tuple[str, tuple[str, ...]]],
    hint: Mapping[str, Array],
) -> Added:
    """Which two tensors of one side are added, of which the other side has the sum alone.

    left, other_left: what has no counterpart; known: what has one, and that; hint: of this side,
    the gradients, which are the same for two that are added. That shows where the second begins at
    0, so that the first alone is the sum.
    """
    biases = [name for name in left if mine[name].ndim == 1]
    both = {
        f"{one} + {two}": (one, two)
        for one, two in combinations(biases if other_left else [], 2)
        if holder(one) == holder(two) and mine[one].shape == mine[two].shape
    }
    if len(both) > MOST:
        both = {}
    sums = {name: mine[one] + mine[two] for name, (one, two) in both.items()}
    found = {
        both[name]: pieces.others
        for name, pieces in in_pieces(sums, {other: theirs[other] for other in other_left})
    }
    for one, others in known:
        for two in biases:
            alike = holder(one) == holder(two) and mine[one].shape == mine[two].shape
            alike = alike and mine[two].size >= FEWEST
            if alike and not mine[two].any() and aligned(hint.get(one), hint.get(two)) > DIGITS:
                found[one, two] = others
    return found


def aligned(one: Array | None, other: Array | None) -> float:
    """To how many digits two arrays are parallel, up to 6; 0 if they cannot be compared.

    Arrays of a few numbers are nearly parallel by chance: names count more than a digit or two.
    """
    if one is None or other is None or one.size != other.size:
        return 0.0
    one, other = one.ravel(), other.ravel()
    sizes = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    if not sizes:
        return 0.0
    cosine = min(1.0, abs(float((one * other).sum())) / sizes)
    if math.isnan(cosine):
        return 0.0
    return -float(np.log10(max(1 - cosine, 1e-6)))


def added_findings(added: Added, other_added: Added) -> Iterator[Finding]:
    """That two biases are one in the other run."""
    for pairs, said in (
        (added, "{one} is one bias where the first run adds two, {both}"),
        (other_added, "{both} are added where the first run has one bias, {one}"),
    ):
        if pairs:
            (both, others), *more = pairs.items()
            where = said.format(one=listed(others), both=" and ".join(both))
            further = f" (and {len(more)} more like it)" if more else ""
            words = f"{where}: each of these moves, and their sum twice as far{further}"
            names = others_of(pairs) if pairs is added else names_of(pairs)
            yield Finding(NAME, "rule", words, 1, names)


def moving(added: Added, still: Collection[str]) -> Added:
    """The pairs of which both move."""
    return {both: others for both, others in added.items() if not {*still} & {*both}}


def names_of(added: Added) -> tuple[str, ...]:
    """The tensors that are added."""
    return tuple(name for both in added for name in both)


def others_of(added: Added) -> tuple[str, ...]:
    """The tensors that are their sums."""
    return tuple(name for others in added.values() for name in others)
