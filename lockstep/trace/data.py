"""What two runs were given: whether their data are the same, and cut into the same windows."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from lockstep.trace.findings import Finding
from lockstep.trace.reading import Trace, Update

# What is known of an array of the data: its shape, its sum, and a checksum of its bytes.
Fingerprint = Mapping[str, Any]
Fingerprints = Sequence[Fingerprint]


def data_findings(mine: Trace, theirs: Trace, alike: Collection[int]) -> Iterator[Finding]:
    """Micro-batches whose data are other ones.

    alike: the updates that begin at the same parameters. In others a state that is carried on, and
    goes into the loss as data do, is another one too: there, all that a micro-batch has must be.
    """
    for first, second in zip(mine.updates, theirs.updates, strict=False):
        ours, others = data_of(first), data_of(second)
        if len(others) < len(ours) and all(each in ours for each in others):
            continue  # some are left out, which the gradients say
        for index, (here, there) in enumerate(zip(ours, others, strict=False)):
            if first.number in alike:
                other = next(exchanged(here, there), None)
            else:
                other = (here[0], there[0]) if strangers(here, there) else None
            if other is not None:
                yield another_finding(first.number, index, *other)
                return


def exchanged(here: Fingerprints, there: Fingerprints) -> Iterator[tuple[Fingerprint, Fingerprint]]:
    """Arrays that only one of two micro-batches has, with those of their shape in the other.

    What is padded to another shape has another sum of its bytes, and may be right.
    """
    for one in here:
        for another in there:
            if (
                one["shape"] == another["shape"]
                and all(each["crc"] != one["crc"] for each in there)
                and all(each["crc"] != another["crc"] for each in here)
            ):
                yield one, another


def strangers(here: Fingerprints, there: Fingerprints) -> bool:
    """Whether two micro-batches have nothing in common."""
    pairs = [(one, another) for one in here for another in there]
    return bool(pairs) and not any(same_data(*pair) for pair in pairs)


def same_data(one: Fingerprint, another: Fingerprint) -> bool:
    """Whether two arrays may hold the same data: turned, or padded with zeros, the sum is it."""
    rounding = 1e-6 * math.prod(one["shape"])
    close = math.isclose(one["sum"], another["sum"], rel_tol=1e-5, abs_tol=rounding)
    return one["crc"] == another["crc"] or close


def another_finding(update: int, index: int, one: Fingerprint, another: Fingerprint) -> Finding:
    """Data of a micro-batch that are other ones, told by their fingerprints."""
    shapes = [f"{each['shape']}" for each in (one, another)]
    shape = f"shape {shapes[0]}" if shapes[0] == shapes[1] else f"shapes {' and '.join(shapes)}"
    said = (
        f"micro-batch {index + 1} of update {update} has other data: of {shape}, sums"
        f" {one['sum']:.6g} and {another['sum']:.6g}"
    )
    return Finding("other data", "data", said, update, phase="data")


def data_of(update: Update) -> list[Fingerprints]:
    """The fingerprints of the data of each micro-batch."""
    return [each.get("data") or () for each in update.facts.get("micro_batches", ())]


def cut_findings(mine: Trace, theirs: Trace) -> Iterator[Finding]:
    """The same micro-batches in the same order, of which an update takes more, or fewer."""
    ours, others = ([data_of(each) for each in run.updates] for run in (mine, theirs))
    pairs = list(zip(chain(*ours), chain(*others), strict=False))
    if not pairs or any(not here or not there or strangers(here, there) for here, there in pairs):
        return
    whole = max(map(len, ours))
    for update, (here, there) in enumerate(zip(map(len, ours), map(len, others), strict=False), 1):
        if here == there:
            continue
        said = f"update {update} takes {there} of the micro-batches, which are the same, and not"
        said += f" {here}"
        name = "other windows"
        if all(len(window) == 1 for window in others):
            name = "step-every-microbatch"
        elif here < there == whole:
            name, said = "leftover-carried", f"{said}: it goes on into the next epoch"
        yield Finding(name, "window", said, update)
        return
