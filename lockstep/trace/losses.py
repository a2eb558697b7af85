"""What tells two losses of the same outputs apart: the targets, and which of them count."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from lockstep.trace.layers import Reason
from lockstep.trace.reading import Array, Update

# How far targets are looked for that were moved along their last axis.
MOST_PLACES = 3
# How far a sum of losses, divided by the loss, may be off a whole number, relatively.
WHOLE = 4e-6


def loss_reason(mine: Update, theirs: Update, outputs: Array) -> Reason | None:
    """Why two runs' losses of the same outputs (..., classes) differ."""
    for here, there in targets(mine, theirs):
        if (places := moved(here, there)) is not None:
            return shift_reason(places)
    if outputs.ndim < 2 or not outputs.size:
        return None
    logs = log_probabilities(outputs)
    read = [readings(logs, t) for t in (*integers(mine, "targets"), *integers(mine, "data"))]
    pairs = [
        (off + other_off, right, wrong)
        for each in read
        for (off, right), (other_off, wrong) in product(
            counted(each, loss_of(mine), mine.micro_batches),
            counted(each, loss_of(theirs), theirs.micro_batches),
        )
        if right != wrong
    ]
    if not pairs:
        return None
    # Some fit by chance: at one place they do so in both runs less often than at two.
    _, right, wrong = min(pairs, key=lambda each: (each[1].ahead != each[2].ahead, each[0]))
    if right.ahead != wrong.ahead:
        return shift_reason(wrong.ahead - right.ahead)
    return padding_reason(right.left_out, wrong.left_out)


def shift_reason(places: int) -> Reason:
    """That targets are so many places further on than the right ones."""
    said = f"its targets are the right ones {abs(places)} place{'s' * (abs(places) > 1)}"
    return Reason("label-shift", f"{said} {'further on' if places > 0 else 'back'}")


def padding_reason(right: Any, wrong: Any) -> Reason:
    """Which targets count, there and here."""
    if wrong is ALL:
        return Reason("padding-counted", f"targets of {right} count, and are left out there")
    if right is ALL:
        return Reason("padding-counted", f"targets of {wrong} are left out, and count there")
    return Reason("padding-counted", f"targets of {wrong} are left out, and {right} is right")


def integers(update: Update, phase: str) -> list[Array]:
    """The arrays of whole numbers in a phase of the first micro-batch."""
    names = sorted(update.phases.get(f"{phase}.0", ()), key=int)
    arrays = [update.array(f"{phase}.0", name, whole=True) for name in names]
    return [each for each in arrays if each is not None and each.dtype.kind in "iu" and each.ndim]


def targets(mine: Update, theirs: Update) -> Iterator[tuple[Array, Array]]:
    """Arrays of whole numbers of as many, which are no data that both have.

    Where both losses have kept their targets, the data are none of them: the tokens that a language
    model gets look like targets one place back.
    """
    sides = [integers(each, "targets") for each in (mine, theirs)]
    if not all(sides):
        sides = [[*integers(each, "targets"), *integers(each, "data")] for each in (mine, theirs)]
    for here in sides[0]:
        alike = [each for each in sides[1] if each.size == here.size]
        if not any(np.array_equal(each.ravel(), here.ravel()) for each in alike):
            yield from ((here.reshape(each.shape), each) for each in alike)


def moved(here: Array, there: Array) -> int | None:
    """By how many places targets were moved along the last axis; None if they were not."""
    for places in (step * sign for step in range(1, MOST_PLACES + 1) for sign in (1, -1)):
        ahead, behind = (here, there) if places > 0 else (there, here)
        ahead, behind = ahead[..., abs(places) :], behind[..., : -abs(places)]
        # Where flat targets are of several rows, their ends do not match.
        if ahead.size and (ahead == behind).mean() > 0.75:
            return places
    return None


def loss_of(update: Update) -> float | None:
    """The first micro-batch's loss."""
    for first in update.facts.get("micro_batches", ()):
        return None if first.get("loss") is None else float(first["loss"])
    return None


ALL = "all"


class Counted(NamedTuple):
    """Which targets a cross entropy is of.

    ahead: by how many places they are further on than the outputs that should be like them;
    left_out: the one that does not count, or ALL.
    """

    ahead: int
    left_out: Any


def readings(logs: Array, target: Array) -> list[tuple[Counted, float, int]]:
    """The sums of cross entropies that a loss may be made of, and of how many targets they are.

    logs: log probabilities, (..., classes).
    """
    if not target.size or target.max() >= logs.shape[-1]:
        return []
    found = []
    for ahead, rows, flat in placed(logs, target):
        losses = -rows[np.arange(len(flat)), np.maximum(flat, 0)]
        values, count = np.unique(flat, return_counts=True)
        # What stands for no token is the first one, or the last, or the one there is most of.
        for left_out in (ALL, *{int(values[0]), int(values[-1]), int(values[count.argmax()])}):
            kept = np.ones(len(flat), bool) if left_out is ALL else flat != left_out
            found.append((Counted(ahead, left_out), float(losses[kept].sum()), int(kept.sum())))
    return found


def counted(
    read: Sequence[tuple[Counted, float, int]], loss: float | None, micro_batches: int
) -> list[tuple[float, Counted]]:
    """Which targets a loss may be the cross entropy of, the likeliest first; none if it is of none.

    The loss is the sum over those that count, divided by a whole number, which is likely to
    be how many these are; where what follows divides by the number of micro-batches, by a whole
    number of these.
    """
    if not loss:
        return []
    fits: list[tuple[float, Counted]] = []
    for found, total, count in read:
        for parts in {1, max(micro_batches, 1)}:
            ratio = total / loss * parts
            if ratio > 0.5 and abs(ratio - round(ratio)) <= WHOLE * ratio:
                fits.append((abs(round(ratio) / parts - count), found))
    return sorted(fits, key=lambda each: each[0])


def placed(outputs: Array, target: Array) -> Iterator[tuple[int, Array, Array]]:
    """Outputs (rows, classes) and targets (rows,), for each place that these may have.

    A sequence's next tokens are the sequence itself, a place further on.
    """
    classes = outputs.shape[-1]
    if target.size == outputs.size // classes:
        yield 0, outputs.reshape(-1, classes), target.ravel()
    if outputs.ndim != 3:
        return
    rows, length = outputs.shape[:2]
    if target.size == rows * (length - 1):
        for ahead, part in ((1, outputs[:, :-1]), (0, outputs[:, 1:])):
            yield ahead, part.reshape(-1, classes), target.ravel()
    if target.shape == (rows, length):
        for ahead in range(1, min(MOST_PLACES, length - 1) + 1):
            for places, part, moved_on in (
                (ahead, outputs[:, :-ahead], target[:, ahead:]),
                (-ahead, outputs[:, ahead:], target[:, :-ahead]),
            ):
                yield places, part.reshape(-1, classes), moved_on.ravel()


def log_probabilities(outputs: Array) -> Array:
    """The logarithms of the probabilities that logits (..., classes) stand for."""
    lower = outputs - outputs.max(-1, keepdims=True)
    return np.asarray(lower - np.log(np.exp(lower).sum(-1, keepdims=True)))
