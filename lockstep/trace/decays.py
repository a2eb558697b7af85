"""How each tensor decays, and where two runs differ in that."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from lockstep.trace.findings import Finding, listed, turned
from lockstep.trace.identify import Identified
from lockstep.trace.matching import Matching
from lockstep.trace.numbers import Number, agreed
from lockstep.trace.rules import KNOWN, Rule


def decays(run: Identified, rule: Rule) -> dict[str, tuple[str, Number]]:
    """How each tensor decays, and with what weight, 0 for not at all.

    Coupled, through the gradient, decoupled, past it, or both; then the weight is the first one's.
    Or alone, past it and not times the rate, which changes.
    """
    found: dict[str, tuple[str, Number]] = {}
    # In plain descent, what goes through the gradient is what goes past it.
    through = "coupled" if run.steps.slots or run.steps.family != "sgd" else "decoupled"
    for kind in (run.coupled, run.pulls, run.in_loss, run.by_hand):
        for name, weight in kind.items():
            if weight.value and name not in run.steps.still:
                before = found[name][1] if name in found else Number(0.0, 0.0)
                found[name] = through, before.plus(weight)
            elif kind is not run.coupled:
                found.setdefault(name, (through, weight))
    shrinks: dict[str, list[Number]] = {}
    alone: dict[str, list[Number]] = {}
    inexact = {move.step.name for move in rule.off}
    for update, each_move in rule.moves.items():
        for name, move in each_move.items():
            if name in run.steps.still:
                continue
            rate = rule.rates.get(update, move.rate)
            if rate.error < KNOWN * abs(rate.value) and math.isfinite(move.shrink.error):
                shrinks.setdefault(name, []).append(move.shrink.over(rate))
                alone.setdefault(name, []).append(move.shrink)
    for name, numbers in shrinks.items():
        one, whatever = agreed(numbers), agreed(alone[name])
        varies = one is None and whatever is not None and not whatever.equals(0.0)
        if name not in found and varies and whatever and name not in inexact:
            found[name] = "alone", whatever
        elif name not in found:
            past = one or Number(numbers[0].value, math.inf)
            found[name] = "decoupled", Number(0.0, past.error) if past.equals(0.0) else past
        elif one is not None and not one.equals(0.0) and name not in inexact:
            other = found[name][1]
            found[name] = ("both", other) if through == "coupled" else (through, other.plus(one))
    return found


def clipped_decay_findings(
    mine: Identified, theirs: Identified, matching: Matching
) -> Iterator[Finding]:
    """Which tensors' decay one of the runs clips with the gradient that it is added to."""
    right = {*matching.others(mine.decay_clipped)}
    for names, first in (
        (theirs.decay_clipped - right, ""),
        (right - theirs.decay_clipped, "without"),
    ):
        if names:
            said = (
                f"the decay of {len(names)} tensors is added before clipping, and clipped with"
                f" their gradients: {listed(sorted(names))}"
            )
            called = "decay-before-clip", said
            name, said = turned(*called) if first else called
            yield Finding(name, "decay", said, 1, tuple(sorted(names)), "after")


def decay_findings(
    mine: Mapping[str, tuple[str, Number]],
    theirs: Mapping[str, tuple[str, Number]],
    matching: Matching,
    rate: Number | None = None,
) -> Iterator[Finding]:
    """Which tensors decay otherwise; rate: of all updates, if it never changes."""
    kinds: dict[str, list[str]] = {}
    others_weights: dict[str, list[str]] = {}
    compared = 0
    for name, match in matching.matches.items():
        for other in match.others:
            if name not in mine or other not in theirs:
                continue
            (how, weight), (their_how, theirs_weight) = mine[name], theirs[other]
            compared += 1
            none, their_none = weight.equals(0.0), theirs_weight.equals(0.0)
            if not math.isfinite(theirs_weight.error) and theirs_weight.value:
                kinds.setdefault("varies", []).append(other)
            elif (none or their_none) and weight.equals(theirs_weight):
                # Both are 0, or not known well enough to say that one is.
                continue
            elif none:
                kinds.setdefault("more", []).append(other)
            elif their_none:
                kinds.setdefault("less" if len(match.shape) > 1 else "bias", []).append(other)
            elif "alone" in (how, their_how) and how != their_how:
                kinds.setdefault("varies" if their_how == "alone" else "times", []).append(other)
            elif "both" in (how, their_how) and how != their_how:
                kinds.setdefault("twice" if their_how == "both" else "once", []).append(other)
            elif how != their_how:
                kinds.setdefault(their_how, []).append(other)
            elif weight.equals(theirs_weight):
                continue
            elif rate is not None and theirs_weight.times(rate).equals(weight):
                kinds.setdefault("alone", []).append(other)
            elif rate is not None and weight.times(rate).equals(theirs_weight):
                kinds.setdefault("times", []).append(other)
            else:
                kinds.setdefault("another", []).append(other)
                others_weights.setdefault(f"{theirs_weight} instead of {weight}", []).append(other)
    decaying = sum(not mine[name][1].equals(0.0) for name in matching.matches if name in mine)
    if "less" in kinds:
        kinds["less"] += kinds.pop("bias", [])
    weights = listed([f"{said}: {listed(names)}" for said, names in others_weights.items()])
    for kind, others in kinds.items():
        count = f"{len(others)} of {compared} tensors"
        which = listed(list(dict.fromkeys(others)))
        name, said = {
            "more": (
                "wd-on-bias" if decaying else "another weight decay",
                f"{count} decay that should not: {which}",
            ),
            "less": (
                "wd-ignored" if len(others) >= decaying else "some do not decay",
                f"{count} do not decay and should: {which}",
            ),
            "bias": (
                "wd-ignored" if len(others) >= decaying else "without wd-on-bias",
                f"{count} do not decay, and do in the first run: {which}",
            ),
            "twice": ("decays twice", f"{count} decay through the gradient and past it: {which}"),
            "once": turned(
                "decays twice", f"{count} decay through the gradient and past it: {which}"
            ),
            "coupled": ("l2-vs-decoupled", f"the decay of {count} goes into the gradient: {which}"),
            "decoupled": (
                "l2-vs-decoupled",
                f"the decay of {count} goes past the gradient: {which}",
            ),
            "alone": (
                "wd-not-times-lr",
                f"{count} shrink by their weight decay, which is not times the rate: {which}",
            ),
            "times": (
                "without wd-not-times-lr",
                f"{count} shrink by the rate times their weight decay, in the first run by their"
                f" weight decay: {which}",
            ),
            "varies": (
                "wd-not-times-lr",
                f"{count} do not decay in proportion to the rate: {which}",
            ),
            "another": ("another weight decay", f"the weight decay of {count} is {weights}"),
        }[kind]
        yield Finding(name, "decay", said, 1, tuple(others), "after")
