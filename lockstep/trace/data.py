"""What two runs were given: whether their data are the same, and cut into the same windows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, product, zip_longest
from typing import Any, NamedTuple

from lockstep.trace.findings import Finding, turned
from lockstep.trace.identify import Identified
from lockstep.trace.reading import Update

# What is known of an array of the data: its shape, its sum, and a checksum of its bytes.
Fingerprint = Mapping[str, Any]
Fingerprints = Sequence[Fingerprint]


class Window(NamedTuple):
    """What an update is made of: its micro-batches' data, of which the first so many were lost.

    Of how many were lost nothing is known where no gradient of theirs was seen.
    """

    data: Sequence[Fingerprints]
    lost: int | None = 0

    @property
    def kept(self) -> Sequence[Fingerprints]:
        """What enters the update."""
        return self.data[self.lost or 0 :]

    @property
    def shown(self) -> bool:
        """Whether its data were recorded, or there are none."""
        return not self.data or any(self.data)

    @property
    def size(self) -> int:
        """How many micro-batches enter the update."""
        return len(self.kept)


def data_findings(
    windows: Sequence[tuple[Window, Window]], off: Mapping[int, bool]
) -> Iterator[Finding]:
    """Micro-batches whose data are other ones.

    off: by update that begins at the same parameters, whether gradients are other ones all the
    same. In other updates a state that is carried on, and goes into the loss as data do, is another
    one too: there, all that a micro-batch has must be. What a run computes, as what another network
    makes, differs by its rounding, and later by more.
    """
    computed = list[Sequence[int]]()
    for number, both in enumerate(windows, 1):
        ours, theirs = (window.data for window in both)
        if len(ours) != len(theirs):
            ours, theirs = (window.kept for window in both)
        fewer, more = sorted((ours, theirs), key=len)
        if len(fewer) < len(more) and all(each in more for each in fewer):
            continue  # some are left out, which the gradients say
        if len(fewer) == 1 < len(more) and all_of(fewer[0], more):
            continue  # one gradient is of all of them at once
        for index, (here, there) in enumerate(zip(ours, theirs, strict=False)):
            others = list(exchanged(here, there))
            if number not in off:
                others = (others or [(here[0], there[0])]) if strangers(here, there) else []
            elif not off[number]:
                # Of other data, the gradients would be others.
                computed += [one["shape"] for one, _ in others]
                continue
            others = [each for each in others if each[0]["shape"] not in computed]
            if others:
                yield another_finding(number, index, *others[0])
                return


def all_of(whole: Fingerprints, parts: Sequence[Fingerprints]) -> bool:
    """Whether a micro-batch may be several ones in one: an array has all of their numbers."""
    together = [
        {
            "shape": [sum(math.prod(each["shape"]) for each in every)],
            "sum": sum(each["sum"] for each in every),
            "crc": None,
        }
        for every in zip(*parts, strict=False)
    ]
    return any(
        math.prod(one["shape"]) == each["shape"][0] and same_data(each, one)
        for one, each in product(whole, together)
    )


def exchanged(here: Fingerprints, there: Fingerprints) -> Iterator[tuple[Fingerprint, Fingerprint]]:
    """Arrays that only one of two micro-batches has, with those of their shape in the other.

    What is padded to another shape has another sum of its bytes, and may be right.
    """
    parts = parts_of(here, there) + parts_of(there, here)
    for one in here:
        for another in there:
            if (
                one["shape"] == another["shape"]
                and one not in parts
                and another not in parts
                and all(each["crc"] != one["crc"] for each in there)
                and all(each["crc"] != another["crc"] for each in here)
            ):
                yield one, another


def parts_of(some: Fingerprints, others: Fingerprints) -> list[Fingerprint]:
    """Which arrays may be all but one step of another's, as the inputs of a sequence are.

    Of one that has no counterpart of its shape; the first axis counts examples.
    """
    shapes, found = [each["shape"] for each in some], []
    for one, other in product(some, others):
        if len(one["shape"]) == len(other["shape"]) and other["shape"] not in shapes:
            more = [b - a for a, b in zip(one["shape"], other["shape"], strict=True)]
            if more[:1] == [0] and sorted(more) == [*[0] * (len(more) - 1), 1]:
                found.append(one)
    return found


def strangers(here: Fingerprints, there: Fingerprints) -> bool:
    """Whether two micro-batches have nothing in common."""
    parts = parts_of(here, there) or parts_of(there, here)
    pairs = list(product(here, there))
    return bool(pairs) and not parts and not any(same_data(*pair) for pair in pairs)


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


def windows_of(mine: Identified, theirs: Identified) -> list[tuple[Window, Window]]:
    """What each update of both runs is made of, empty where a run has ended."""
    updates = zip_longest(mine.steps.trace.updates, theirs.steps.trace.updates)
    return [(window_of(mine, first), window_of(theirs, second)) for first, second in updates]


def window_of(run: Identified, update: Update | None) -> Window:
    """What an update is made of."""
    return Window(data_of(update), run.lost.get(update.number)) if update else Window([])


# What a run is called that cuts the same micro-batches into other windows. From there on its
# updates are of other numbers, by which a schedule of epochs, or of examples, comes early or late.
CUTS = frozenset({
    "leftover-dropped", "leftover-carried", "leftover-leaks", "step-every-microbatch",
    "boundary-off-by-one", "other windows",
})  # fmt: skip
NUMBERED = frozenset({"sched-off-by-one", "sched-per-epoch", "other learning rates"})


def numbered_by_cuts(found: Sequence[Finding]) -> list[Finding]:
    """The findings without those of schedules that come of other windows."""
    cuts = [each.update for each in found if each.name.removeprefix("without ") in CUTS]
    until = min(cuts, default=math.inf)
    return [e for e in found if e.name.removeprefix("without ") not in NUMBERED or e.update < until]


def cut_findings(windows: Sequence[tuple[Window, Window]]) -> Iterator[Finding]:
    """The first update that takes more, fewer or other ones of the micro-batches of both runs."""
    for index, (here, there) in enumerate(windows):
        if alike(here, there) or not (here.shown and there.shown):
            continue
        ours, others = (list(run) for run in zip(*windows, strict=True))
        name, said = cut_name(ours, others, index)
        if name in ("", "other windows"):
            other, of_first = cut_name(others, ours, index)
            if other not in ("", "other windows"):
                name, said = turned(other, of_first)
        if name:
            tied: tuple[str, ...] = ()
            if name == "leftover-leaks" and there.lost is None:
                tied = ("leftover-dropped",)
                said += ", or were lost before it: of a sum that is not seen"
            yield Finding(name, "window", said, index + 1, others=tied)
        return


def cut_name(ours: Sequence[Window], others: Sequence[Window], index: int) -> tuple[str, str]:
    """What the second run does with the micro-batches from a window on; empty if it is not told."""
    here, there = ours[index], others[index]
    following = ours[index + 1] if index + 1 < len(ours) else Window([])
    whole = max(each.size for each in ours)
    # An epoch begins with a whole window, or has none.
    short = 0 < here.size < whole and index > 0
    left = f"{here.size} of {whole} micro-batches that are left of an epoch"
    if short and not there.data:
        # A run that takes what is left of an epoch may have been ended here.
        ends = not following.data and all(each.size == whole for each in ours[:index])
        return ("leftover-dropped", f"the {left} enter no update") if ends else ("", "")
    if short and alike(there, following):
        said = f"the {left} enter no update: update {index + 1} takes the next ones"
        return "leftover-dropped", said
    stream = list(zip(*(chain(*(w.data for w in run[index:])) for run in (ours, others))))
    if not stream or not all(shared(*each) for each in stream):
        return "", ""
    said = (
        f"update {index + 1} takes {there.size} of the micro-batches, which are the same, and not"
        f" {here.size}"
    )
    if there.lost:
        said += f", after {there.lost} that enter none"
    if all(len(window.data) <= 1 for window in others):
        return "step-every-microbatch", said
    later = [window.size for window in others[1:] if window.data]
    begun = not index and here.size == whole and there.size in (1, whole - 1)
    if begun and {*later[:-1]} == {whole}:
        return "boundary-off-by-one", f"{said}, and those after it {whole}"
    if short and there.size == following.size == whole:
        return "leftover-carried", f"{said}: it goes on into the next epoch"
    if short and there.size == here.size + following.size > whole:
        return "leftover-leaks", f"{said}: the {left} enter the next epoch's first update"
    return "other windows", said


def left_of_epoch(windows: Sequence[tuple[Window, Window]], update: int) -> str:
    """What a gradient that is another one may come from, where one run did not show its data."""
    whole = max(each.size for both in windows for each in both)
    first, second = windows[update - 1]
    for run, each, other in (("the first run", first, second), ("it", second, first)):
        if each.size < whole and each.shown and not other.shown:
            return (
                f"; {run} takes there {each.size} of {whole} micro-batches, which may be left of an"
                " epoch, and of what the other update is was not recorded"
            )
    return ""


def alike(one: Window, another: Window) -> bool:
    """Whether two windows have as many micro-batches, of which none is known to be another one.

    Or as many that enter the update, where only one run has seen those that do not.
    """
    if len(one.data) == len(another.data):
        return not any(map(strangers, one.data, another.data))
    return one.size == another.size and not any(map(strangers, one.kept, another.kept))


def shared(here: Fingerprints, there: Fingerprints) -> bool:
    """Whether two micro-batches are known to be the same."""
    return bool(here) and bool(there) and not strangers(here, there)
