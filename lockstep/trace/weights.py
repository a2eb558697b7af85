"""With what weights the gradients of its micro-batches are in what an update accumulated."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from lockstep.record.writer import lattice
from lockstep.trace.numbers import Fit, Number, fit, unit
from lockstep.trace.reading import MOST, Array, Update
from lockstep.trace.whole import parts, sampled, squared, stored

# How near to 1 or 0 a weight is that is taken for that.
NEAR = 1e-3


def window_fit(
    update: Update,
    previous: Sequence[Update],
    names: Iterable[str],
    besides: str | None = None,
) -> Fit | None:
    """The weights of the micro-batches in what was accumulated, over some tensors at once.

    After those of its own come those of windows before: 0, where the accumulator was emptied.
    besides: a phase that is in it, too, with a weight that comes last. They are read off numbers at
    regular places, and held to all.
    """
    targets, columns, bounds, large = [], [], [], []
    for name in names:
        terms = terms_of(update, previous, name, besides)
        if terms is None:
            continue
        rounding = unit(update.dtype("accumulated", name)) * len(terms)
        rows = looked_at(terms)
        targets.append(rows[0])
        columns.append(rows[1:])
        bounds.append(rounding * abs(rows).sum(axis=0))
        if rows.shape[1] < terms[0].size:
            large.append((terms, rounding))
    if not targets:
        return None
    found = fit(
        np.concatenate(targets), list(np.concatenate(columns, axis=1)), np.concatenate(bounds)
    )
    for terms, rounding in large:
        found = held(found, terms, rounding) if found.exact else found
    return found


def looked_at(terms: Sequence[Array]) -> Array:
    """The numbers of each term at regular places; of those that any has, if one has none there."""
    rows = np.array([sampled(each).ravel() for each in terms])
    if all(row.any() or not each.any() for row, each in zip(rows, terms, strict=True)):
        return rows
    known = np.zeros(terms[0].size, dtype=bool)
    for each in terms:
        known |= each.ravel() != 0
    places = np.flatnonzero(known)
    places = places[lattice(len(places), 1, MOST)]
    return np.array([each.ravel()[places] for each in terms], dtype=np.float64)


def terms_of(
    update: Update, previous: Sequence[Update], name: str, besides: str | None = None
) -> list[Array] | None:
    """What was accumulated of a tensor, and what it may be a sum of; None if that is not shown."""
    accumulated = shown(update, "accumulated", name)
    if accumulated is None or not update.micro_batches:
        return None
    each = [
        shown(window, f"gradient.{index}", name)
        for window in (update, *previous)
        for index in range(window.micro_batches)
    ]
    if besides is not None:
        each.append(shown(update, besides, name))
    nothing = np.broadcast_to(np.zeros((), accumulated.dtype), accumulated.shape)
    terms = [accumulated, *(nothing if part is None else part for part in each)]
    return terms if all(part.shape == accumulated.shape for part in terms) else None


def shown(update: Update, phase: str, name: str) -> Array | None:
    """All of an array that was recorded, as it is without a loss scaler."""
    array, scale = stored(update, phase, name), update.scale(phase)
    return array if array is None or scale == 1.0 else array / scale


def held(found: Fit, terms: Sequence[Array], rounding: float) -> Fit:
    """A fit that was made at regular places, and what all numbers of a tensor leave over.

    rounding: of the sum, in the size of its terms.
    """
    weights = [one_or_none(number) for number in found.coefficients]
    worst, left, size, sizes = 0.0, 0.0, 0.0, np.zeros(len(terms))
    for accumulated, *each in parts(*terms):
        rest = accumulated - sum(w * part for w, part in zip(weights, each, strict=True) if w)
        worst = max(worst, float(abs(rest).max()))
        left, size = left + squared(rest), size + squared(accumulated)
        sizes = np.maximum(sizes, [float(abs(part).max()) for part in (accumulated, *each)])
    off = sum(n.error * s for n, s in zip(found.coefficients, sizes[1:], strict=True) if s)
    bound = rounding * float(sizes.sum()) + off
    return replace(
        found,
        left=max(found.left, worst / bound if worst else 0.0),
        relative=max(found.relative, math.sqrt(left / size) if size else 0.0),
    )


def one_or_none(number: Number) -> float:
    """A weight, 1 or 0 if it may be that: what is added as it is rounds least.

    In half precision 1/3 may be 0 in the worst case, and is none. What may be anything is 1.
    """
    anything = number.error >= 1.0
    near = (
        n for n in (1.0, 0.0) if number.equals(n) and (anything or abs(number.value - n) < NEAR)
    )
    return next(near, number.value)
