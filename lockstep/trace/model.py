"""Gradients that are other ones from the same parameters: the model, its loss or the data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lockstep.trace import forward
from lockstep.trace.data import another_finding, data_of, strangers
from lockstep.trace.findings import Finding, turned
from lockstep.trace.forward import Parting
from lockstep.trace.gradients import Pair
from lockstep.trace.layers import Case, Reason, explained
from lockstep.trace.losses import loss_reason
from lockstep.trace.masked import MASKED, mask_of, masked_words
from lockstep.trace.matching import Matching
from lockstep.trace.reading import Trace, Update
from lockstep.trace.whole import stored, whole


def model_findings(
    mine: Trace, theirs: Trace, gradients: Sequence[Pair], matching: Matching
) -> Iterator[Finding]:
    """Gradients that are other ones from the same parameters: the model, its loss or the data."""
    untied = list(untied_findings(mine, theirs, matching))
    yield from untied
    pair = next((each for each in gradients if each.off and not each.nothing), None)
    if pair is None or (untied and only_untied(pair, mine, theirs, matching)):
        return
    off = pair.off
    where = "" if pair.micro_batch is None else f" in micro-batch {pair.micro_batch + 1}"
    worst = ", ".join(f"{name} ({off[name]:.1g})" for name in list(off)[:3])
    said = (
        f"the gradients of {len(off)} of {len(pair.rest)} tensors are other ones{where}, at the"
        f" same parameters, most of all {worst}; rounding leaves {pair.floor:.0e}"
    )
    # Updates are numbered from 1, and none is missing.
    found = parted(
        mine.updates[pair.update - 1], theirs.updates[pair.update - 1], matching, pair.floor
    )
    name = "another gradient"
    if found is not None:
        parting, reason = found
        said = f"the forward passes part {parting.where}; {said}"
        if reason is not None:
            name, said = reason.name, f"{reason.said}, {parting.where}; {said.split('; ', 1)[1]}"
    modules = found[0].names if found is not None else ()
    both = [data_of(run.updates[pair.update - 1]) for run in (mine, theirs)]
    index = pair.micro_batch
    if index is not None and index < min(map(len, both)):
        here, there = (data[index] for data in both)
        if strangers(here, there):
            yield another_finding(pair.update, index, here[0], there[0])
            return
    if found is None and (told := masked_reason(pair, mine, theirs, matching)):
        name, said = told
    yield Finding(name, "model", said, pair.update, tuple(off), "gradient", modules=modules)


def masked_reason(
    pair: Pair, mine: Trace, theirs: Trace, matching: Matching
) -> tuple[str, str] | None:
    """That gradients which are other ones lack some numbers in one run, and are the same else."""
    update, other = mine.updates[pair.update - 1], theirs.updates[pair.update - 1]
    phase = "accumulated" if pair.micro_batch is None else f"gradient.{pair.micro_batch}"
    both = {name: whole(update, other, matching.matches[name], phase) for name in pair.off}
    for first, ways in ((False, both), (True, {n: b and b.turned for n, b in both.items()})):
        masks = {name: mask_of(each, pair.floor) for name, each in ways.items() if each}
        known = {name: mask for name, mask in masks.items() if mask is not None}
        if len(known) == len(both):
            said = f"of a micro-batch's gradient, {masked_words(known)}"
            return turned(MASKED, said) if first else (MASKED, said)
    return None


def parted(
    mine: Update, theirs: Update, matching: Matching, floor: float
) -> tuple[Parting, Reason | None] | None:
    """Where the forward passes of an update part, and why; None where they were not recorded."""
    parting = forward.parting(mine, theirs, matching, floor)
    if parting is None:
        return None
    if parting.kind == "loss":
        return parting, loss_reason(mine, theirs, parting.got[0])
    if parting.kind == "sizes":
        return parting, None
    parameters: dict[str, dict[str, Any]] = {}
    for name in mine.phases["before"]:
        module = forward.owner(name, mine.facts["modules"])
        array = mine.array("before", name, whole=True)
        if module is not None and array is not None:
            parameters.setdefault(module, {})[name[len(module) :].lstrip("./")] = array
    return parting, explained(Case(parting, parameters, floor))


def only_untied(pair: Pair, mine: Trace, theirs: Trace, matching: Matching) -> bool:
    """Whether a pair's gradients are the same once those of the copies are added to their own."""
    update, other = mine.updates[pair.update - 1], theirs.updates[pair.update - 1]
    phase = "accumulated" if pair.micro_batch is None else f"gradient.{pair.micro_batch}"
    added = {name: (other, copy) for copy, name in matching.copies.items()}
    added |= {name: (update, copy) for copy, name in matching.own_copies.items()}
    if set(pair.off) - set(added):
        return False

    def both(name: str) -> tuple[Any, Any]:
        found = whole(update, other, matching.matches[name], phase)
        return (None, None) if found is None else found.sampled

    # What a recorder sees may have the weight of the micro-batch in it, or not.
    alike = [both(name) for name in pair.rest if name not in pair.off]
    first, second = max(alike, key=lambda each: float(abs(each[0]).max()), default=(None, None))
    if first is None or not (square := float((first * first).sum())):
        return False
    weight = float((first * second).sum()) / square
    for name in pair.off:
        (run, copy), (right, own) = added[name], both(name)
        copied, every = run.array(phase, copy), weight * right
        if copied is None:
            return False
        if run is update:
            copied, every, own = weight * copied, own, every
        turned = forward.arranged(every - own, copied)
        if turned is None or forward.distance(every, own + turned) > pair.floor:
            return False
    return True


def untied_findings(mine: Trace, theirs: Trace, matching: Matching) -> Iterator[Finding]:
    """Parameters of their own that are one in the other run."""
    for copies, trace in ((matching.copies, theirs), (matching.own_copies, mine)):
        for copy, name in copies.items():
            if not any(has_gradient(update, copy) for update in trace.updates):
                continue  # a copy that stands beside the model, as a target network does
            called = "untied", f"{copy} begins as a copy of {name}, and is trained on its own"
            own = copies is matching.copies
            name, said = called if own else turned(*called)
            said += ": they are one in the other"
            yield Finding(name, "model", said, 1, (copy,), "before")


def has_gradient(update: Update, name: str) -> bool:
    """Whether a parameter has a gradient in an update, and not of zeros."""
    gradient = stored(update, "accumulated", name)
    return gradient is not None and bool(gradient.any())
