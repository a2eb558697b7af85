"""What is in an accumulator that is not the sum of its window's gradients, with one weight each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lockstep.oracle.rounding import PRECISION
from lockstep.trace.findings import listed
from lockstep.trace.identify import SUMMED, Identified
from lockstep.trace.masked import MASKED, Mask, mask_of, masked_words
from lockstep.trace.numbers import Fit, Number, agreed, unit, worded
from lockstep.trace.reading import Array, Update
from lockstep.trace.weights import terms_of
from lockstep.trace.whole import Both


@dataclass(frozen=True)
class Told:
    """What is different in an update: the catalogue's name or a few words, a sentence, tensors."""

    name: str
    said: str
    tensors: tuple[str, ...] = ()


def other_sums(run: Identified) -> dict[int, Told]:
    """By update, what was accumulated that no weights of the micro-batches explain.

    Of several ranks it is the mean, of which one alone has seen its share.
    """
    found: dict[int, Told] = {}
    if run.steps.trace.facts.get("ranks", 1) > 1:
        return found
    for number, fits in run.by_tensor.items():
        update = run.steps.trace.updates[number - 1]
        off = {name: fitted.relative for name, fitted in fits.items() if not fitted.exact}
        if not off:
            told = by_tensor(update, fits, run.window[number][1])
            found |= {number: told} if told else {}
        elif not off.keys() <= run.pulls.keys():
            found[number] = other_sum(update, off, len(fits))
    return found


def other_sum(update: Update, off: Mapping[str, float], count: int) -> Told:
    """What one update's accumulator holds, of which some tensors are off by so much."""
    for dtype in ("bfloat16", "float16"):
        # A sum that is rounded so often is off by no more.
        rounded = 2.0 ** -PRECISION[dtype] * 4 * update.micro_batches
        if max(off.values()) < rounded and coarse(update, dtype):
            said = f"what is accumulated in update {update.number} has the digits of {dtype}"
            return Told("low-precision-accumulator", said, tuple(off))
    if len(masks := masked_sums(update, off)) == len(off):
        said = f"in what update {update.number} accumulates, {masked_words(masks)}"
        return Told(MASKED, said, tuple(masks))
    worst = sorted(off, key=lambda name: -off[name])
    each = ", ".join(f"{name} ({off[name]:.1g})" for name in worst[:3])
    return Told(
        "another sum",
        f"what is accumulated in update {update.number} is not the sum of its micro-batches'"
        f" gradients, in {len(off)} of {count} tensors, most of all {each} of it",
        tuple(worst),
    )


def masked_sums(update: Update, names: Iterable[str]) -> dict[str, Mask]:
    """What was emptied in the sums of some tensors, of those of which nothing else is different."""
    found: dict[str, Mask] = {}
    for name in names:
        terms = terms_of(update, (), name)
        if terms is not None:
            rounding = SUMMED * unit(update.dtype("accumulated", name)) * len(terms)
            mask = mask_of(Both(sum(terms[2:], terms[1]), terms[0]), rounding)
            found |= {name: mask} if mask else {}
    return found


def by_tensor(update: Update, fits: Mapping[str, Fit], count: int) -> Told | None:
    """Which tensors' micro-batches enter with other weights than those of most."""
    again = tuple(
        name for name, fitted in fits.items() if any(map(some, fitted.coefficients[count:]))
    )
    if again:
        return Told(
            "missing-zero-grad",
            f"the gradients of update {update.number - 1} enter update {update.number} again, in"
            f" {len(again)} of {len(fits)} tensors: {listed(again)}",
            again,
        )
    weights = {name: common(fitted.coefficients[:count]) for name, fitted in fits.items()}
    known = {name: weight for name, weight in weights.items() if weight is not None}
    usual = max(known.values(), key=lambda one: sum(map(one.equals, known.values())), default=None)
    others = tuple(
        name for name in fits if usual is None or name not in known or not known[name].equals(usual)
    )
    if not others:
        return None
    each = ", ".join(
        f"{name} by {worded(known[name].over(usual).value)}"
        for name in others
        if usual and name in known and usual.value
    )
    return Told(
        "other weights by tensor",
        f"the gradients of {len(others)} of {len(fits)} tensors enter update {update.number} with"
        f" weights of their own: {each or listed(others)}",
        others,
    )


def common(weights: Sequence[Number]) -> Number | None:
    """The one weight of all micro-batches, where they have one that is known."""
    known = [each for each in weights if math.isfinite(each.error)]
    return agreed(known) if len(known) == len(weights) else None


def some(weight: Number) -> bool:
    """Whether a weight is known, and not 0."""
    return math.isfinite(weight.error) and not weight.equals(0.0)


def coarse(update: Update, dtype: str) -> bool:
    """Whether all that was accumulated has no more digits than a dtype, and the gradients have."""
    accumulated, single = (
        [array for phase in phases for array in arrays_of(update, phase)]
        for phases in (["accumulated"], [f"gradient.{i}" for i in range(update.micro_batches)])
    )
    bits = PRECISION[dtype]
    return all(digits(a, bits) for a in accumulated) and not all(digits(a, bits) for a in single)


def arrays_of(update: Update, phase: str) -> Iterator[Array]:
    """All arrays of a phase."""
    for name in update.phases.get(phase, ()):
        array = update.array(phase, name)
        if array is not None:
            yield array


def digits(array: Array, bits: int) -> bool:
    """Whether each number of an array has so many binary digits at most."""
    scaled = np.ldexp(np.frexp(array)[0], bits)
    return bool((scaled == np.round(scaled)).all())
