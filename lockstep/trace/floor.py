"""How far rounding alone takes two runs' gradients apart: by their dtypes, or as it was measured.

It is measured by a run that was recorded twice: in more digits the second time, or in another order
of its examples, in which rounding is another one. No dtype shows what an accelerator leaves out of
a product, or how much a model makes of a rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lockstep.trace.data import data_of, strangers
from lockstep.trace.gradients import (
    CONDITION,
    FAR,
    Contributions,
    Pair,
    contributions,
    distance,
    pair_of,
)
from lockstep.trace.matching import Matching, matched
from lockstep.trace.numbers import once
from lockstep.trace.reading import Array, Trace, TraceError, Update

# How many roundings a gradient is off, of its norm: of sums, and of what is kept between them, for
# one tensor that it goes through. Random ones add up as their square root.
SUMS, VALUES = 128.0, 4.0
# How many times as far as one run's rounding another one's is taken to be, where that is more than
# is derived; and where it is less: of right pairs beside their own in float64, 13 was the most.
TIMES, AT_MOST = 4.0, 16.0
# What is further off than this part of itself is another gradient in any precision.
MOST = 0.25
# What part of the rounding that may be is more than right runs mostly have.
MUCH = 0.2
# Of which dtype numbers are that have just as many digits, and of how many that is known.
HALF = {8: "bfloat16", 11: "float16"}
ENOUGH = 64
# What part of the largest gradient one is, at least, whose digits say that.
TOLD = 1e-4


@dataclass(frozen=True)
class Floor:
    """What rounding may be of a gradient.

    relative: as a part of its norm; said: how that is known, in words.
    """

    relative: float
    said: str


def derived(dtypes: Sequence[str], count: int) -> Floor:
    """By the coarser dtype of two runs' gradients, and of how many tensors these are.

    Where values are kept in half precision, sums are not: they have float32 at least.
    """
    dtype = max(dtypes, key=once)
    sums = SUMS * min(once(dtype), once("float32"))
    of = f"{count} tensor{'s' * (count > 1)}"
    return Floor(math.sqrt(count) * max(sums, VALUES * once(dtype)), f"{dtype}, {of}")


def measured(mine: Trace, own: str, again: Trace, known: Floor) -> Floor:
    """As the first run shows that was recorded once more, from the same parameters.

    own: the dtype of its gradients; known: what is derived, which only a run of more digits makes
    less. Raises TraceError where nothing shows: it is another run, has
    fewer digits, or rounds in the same way.
    """
    finer = dtype_of(again)
    if once(finer) > once(own):
        raise TraceError(
            f"{again.folder} is in {finer}, {mine.folder} in {own}: its rounding is no measure of"
            " the other's; record it in as many digits, or more"
        )
    hints = mine.first("accumulated"), again.first("accumulated")
    matching = matched(mine.begins, again.begins, {}, hints)
    every = both_recorded(mine, again, matching) if matching.matches else ()
    apart = max(map(worst, every), default=None)
    if apart is None or apart > MOST:
        far = f"gradients differ by {apart:.1g} of their norm" if apart else "parameters differ"
        raise TraceError(f"{again.folder} is not {mine.folder} once more: its {far}")
    if not apart:
        raise TraceError(
            f"{again.folder} has the very gradients of {mine.folder}, which shows nothing of"
            " rounding; record it in more digits, or with its examples in another order"
        )
    more = once(finer) < once(own)
    how = f"what {again.folder.name} shows of it, {f'in {finer}' if more else 'in another order'}"
    if TIMES * apart > known.relative:
        return Floor(TIMES * apart, f"{TIMES:g} times {how}")
    if more and AT_MOST * apart < known.relative:
        return Floor(AT_MOST * apart, f"{AT_MOST:g} times {how}")
    return known


def both_recorded(mine: Trace, again: Trace, matching: Matching) -> Iterator[Contributions]:
    """The gradients of the same data from nearly the same parameters in two recordings of a run."""
    for update in mine.updates:
        other = again.update(update.number)
        if other is None or distance(update, other, matching, 0.0, {}) * CONDITION > FAR:
            return
        for index, second in same_data(update, other):
            phases = f"gradient.{index}", f"gradient.{second}"
            yield contributions(update, other, matching, *phases)
        yield contributions(update, other, matching, "accumulated", "accumulated")


def same_data(update: Update, other: Update) -> Iterator[tuple[int, int]]:
    """The micro-batches of two updates that are known to have the same data, in any order."""
    left = dict(enumerate(data_of(other)))
    for index, here in enumerate(data_of(update)):
        alike = (key for key, there in left.items() if there and not strangers(here, there))
        if here and (second := next(alike, None)) is not None:
            del left[second]
            yield index, second


def worst(both: Contributions) -> float:
    """How far two recordings of a gradient are apart, in the tensor in which they are furthest."""
    found = pair_of(0, None, both, 0.0)
    return max(found.rest.values()) if found is not None else 0.0


def precision_notes(mine: Trace, theirs: Trace, dtypes: Sequence[str]) -> Iterator[str]:
    """That the gradients of one run are in half precision, and those of the other are not."""
    first, second = dtypes
    if first != second and {first, second} & {*HALF.values()}:
        yield (
            f"the gradients of {mine.folder.name} are in {first}, and those of"
            f" {theirs.folder.name} in {second}: what is less than this rounding was not looked at"
        )


def coarse_notes(dtype: str) -> Iterator[str]:
    """That parameters of a dtype, which may be none, hide what updates do to them."""
    if dtype:
        yield (
            f"parameters in {dtype} move by no more than that rounds: most of what is different"
            " behind the optimizer's state would not show"
        )


def seen(gradients: Sequence[Pair], floor: Floor) -> float | None:
    """How far gradients of the same parameters are apart, of their norm, if it may be rounding."""
    apart = [max(pair.rest.values()) for pair in gradients if pair.update == 1]
    return max(apart) if apart and max(apart) <= floor.relative else None


def rounding_notes(gradients: Sequence[Pair], floor: Floor) -> Iterator[str]:
    """That what is taken for rounding is more than two right runs mostly have of it."""
    apart = seen(gradients, floor)
    if apart is not None and apart > MUCH * floor.relative:
        yield (
            f"gradients are up to {apart:.0e} of their norm apart, which may be rounding, or not:"
            " the first run recorded once more in float64 shows it, with --again"
        )


def dtype_of(trace: Trace) -> str:
    """The dtype of a run's gradients: the parameters', or one of fewer digits, if that is seen."""
    update = trace.updates[0]
    kept = (trace.firsts[name].dtype("before", name) for name in trace.parameters)
    phase = "gradient.0" if "gradient.0" in update.phases else "accumulated"
    arrays = [update.array(phase, name) for name in update.phases.get(phase, ())]
    sizes = [float(np.linalg.norm(array)) if array is not None else 0.0 for array in arrays]
    # Where nearly all of a sum cancels, few digits are left, too.
    told = [
        a for a, s in zip(arrays, sizes, strict=True) if a is not None and s > TOLD * max(sizes)
    ]
    came = (HALF[count] for count in digits(told) if count in HALF)
    return max([*kept, *came], key=once)


def digits(arrays: Sequence[Array]) -> Iterator[int]:
    """How many binary digits the numbers of each array have, of as many as tell that."""
    for array in arrays:
        found = array[array != 0].astype(np.float64)
        if found.size >= ENOUGH:
            mantissa = int(np.bitwise_or.reduce(found.view(np.uint64))) % 2**52 or 2**52
            yield 54 - (mantissa & -mantissa).bit_length()
