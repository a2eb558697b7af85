"""What tells two losses of the same outputs apart: the targets, and which of them count."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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
            said = f"its targets are the right ones {abs(places)} place{'s' * (abs(places) > 1)}"
            return Reason("label-shift", f"{said} {'further on' if places > 0 else 'back'}")
    for target in [*integers(mine, "targets"), *integers(mine, "data")][::-1]:
        right, wrong = (
            counted(outputs, target, loss_of(each), each.micro_batches) for each in (mine, theirs)
        )
        if right is not None and wrong is not None and right != wrong:
            return padding_reason(right, wrong)
    return None


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
    """Arrays of whole numbers of as many, which are no data that both have."""
    sides = [[*integers(each, "targets"), *integers(each, "data")] for each in (mine, theirs)]
    for here in sides[0]:
        alike = [each for each in sides[1] if each.size == here.size]
        if not any(np.array_equal(each.ravel(), here.ravel()) for each in alike):
            yield from ((here.reshape(alike[0].shape), each) for each in alike)


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


def counted(outputs: Array, target: Array, loss: float | None, micro_batches: int) -> Any:
    """Which target's losses a cross entropy leaves out, ALL if none; None where it is none.

    The loss is the sum over those that count, divided by a whole number; where what follows divides
    by the number of micro-batches, by a whole number of these.
    """
    if loss is None or not loss or outputs.ndim < 2:
        return None
    logits = outputs.reshape(-1, outputs.shape[-1])
    flat = target.ravel()
    if len(flat) != len(logits) or flat.max() >= logits.shape[1]:
        return None
    losses = cross_entropies(logits, np.maximum(flat, 0))
    fits: list[tuple[float, Any]] = []
    for left_out in (ALL, *np.unique(flat).tolist()):
        kept = np.ones(len(flat), bool) if left_out is ALL else flat != left_out
        for parts in {1, max(micro_batches, 1)}:
            ratio = float(losses[kept].sum()) / loss * parts
            if ratio > 0.5 and abs(ratio - round(ratio)) <= WHOLE * ratio:
                fits.append((abs(round(ratio) / parts - int(kept.sum())), left_out))
    return min(fits, key=lambda each: each[0])[1] if fits else None


def cross_entropies(logits: Array, target: Array) -> Array:
    """The cross entropy of each row of logits (rows, classes) with its target (rows,)."""
    top = logits.max(1)
    sums = np.log(np.exp(logits - top[:, None]).sum(1)) + top
    return np.asarray(sums - logits[np.arange(len(target)), target])
