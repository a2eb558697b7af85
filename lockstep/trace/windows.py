"""How the micro-batches of a window enter its update: what two runs do differently."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from lockstep.trace.clipping import clipped_within, cut_sums, limit_of_sums, way_of
from lockstep.trace.data import data_of, shared, window_of
from lockstep.trace.findings import Finding, turned
from lockstep.trace.gradients import Pair, in_common, near
from lockstep.trace.identify import NOTHING, Identified
from lockstep.trace.numbers import Number, worded
from lockstep.trace.sums import Told, other_sums

# What part of a weight it may be off that is told.
UNSURE = 0.5
# What a window is called that one of two runs takes no step for.
SKIPPED = "windows left out"


def skip_findings(mine: Identified, theirs: Identified) -> Iterator[Finding]:
    """A window that one of the runs takes no step for."""
    excused = 0
    for update in sorted(mine.left_out.keys() & theirs.left_out.keys()):
        more = theirs.left_out[update] - mine.left_out[update] - excused
        runs = (theirs, mine) if more > 0 else (mine, theirs)
        if more and of_other_losses(*runs, update):
            excused += more
        elif more:
            which = "it" if more > 0 else "the first run"
            why = (
                ", as a loss scaler does after a gradient that is not finite"
                if any(each.facts.get("skipped") for each in runs[0].steps.trace.updates)
                else ""
            )
            windows = "a window" if abs(more) == 1 else f"{abs(more)} windows"
            said = f"before update {update} {which} left out {windows}{why}"
            yield Finding(SKIPPED, "window", said, update, phase="accumulated")
            return


def of_other_losses(run: Identified, other: Identified, update: int) -> bool:
    """Whether what a run threw away before an update is none of what the other one ever sees.

    As the gradients that a critic gets of its generator's loss, which it never takes.
    """
    window = window_of(run, run.steps.trace.updates[update - 1])
    taken = [data for each in other.steps.trace.updates for data in data_of(each)]
    return bool(
        window.lost
        and window.kept
        and taken
        and all(window.kept)
        and all(taken)
        and not any(shared(lost, each) for lost in window.data[: window.lost] for each in taken)
    )


def window_findings(
    pairs: Sequence[Pair], theirs: Identified, mine: Identified | None = None
) -> Iterator[Finding]:
    """What the weights of the micro-batches say, of the first window that shows it.

    mine: the first run, whose windows may be the ones that are not whole.
    """
    every = [
        (emptied(theirs, mine), emptied(mine, theirs) if mine else {}),
        (again(theirs), again(mine) if mine else {}),
        (unlike_sums(theirs), unlike_sums(mine) if mine else {}),
    ]
    sometimes = every[0][0].keys() | every[0][1].keys()
    left = every[1][0].keys() ^ every[1][1].keys()
    counts = [entering(run) for run in (theirs, mine) if run]
    whole = max(chain(*(each.values() for each in counts)), default=1)
    for update in dict.fromkeys(pair.update for pair in pairs):
        each = [pair for pair in pairs if pair.update == update]
        if any(update in run.by_tensor for run in (theirs, mine) if run):
            continue  # what else is in the accumulator is said below
        values = [pair.coefficient for pair in each]
        if any(pair.off for pair in each):
            # Of another model, each weight may be as far off as that of any micro-batch.
            error = max(value.error for value in values)
            if any(value.value and error > UNSURE * abs(value.value) for value in values):
                continue  # what may be half of it, or twice, says nothing
            values = [near(value.value, error) for value in values]
        if all(value.equals(1.0) for value in values):
            continue
        if update in sometimes or (update in left and math.isinf(values[0].value)):
            break  # it is no rule of the loop, or no window of its own: said below
        # Where a run shows the sum alone, the other one may say of how many micro-batches it is.
        count = len(values) if len(values) > 1 else max(1, *(run.get(update, 1) for run in counts))
        name, said = either_name(values, count, whole)
        if name in UNNAMED and mine is not None:
            name = clipped_name(values, update, theirs, mine) or name
        more = math.isinf(values[0].value) and all(value.equals(1.0) for value in values[1:])
        if update == 1 and more and all(len({*each}) == 1 for each in later(counts)):
            name = "stale-first-window"
            said = "a gradient from before the loop is in the first window, beside its own"
        yield Finding(name, "window", said, update, phase="gradient")
        break
    for own, right in every:
        for update in sorted(own.keys() ^ right.keys()):
            told = own.get(update) or right[update]
            name, said = told.name, told.said
            if update not in own:
                name, said = turned(name, said)
            # Some trainers do so by design: it is a difference beside a run that does not.
            policy = mine is None and name == "leftover-dropped"
            yield Finding(name, "window", said, update, told.tensors, "accumulated", policy)
            break


def clipped_name(
    values: Sequence[Number], update: int, theirs: Identified, mine: Identified
) -> str | None:
    """The name of clipping in mid-window that gives micro-batches these weights, in either run."""
    limit = limit_of(mine) or limit_of(theirs)
    if limit is None or not all(each.value and math.isfinite(each.value) for each in values):
        return None
    hidden = update in cut_sums(mine, theirs)
    name = clipped_as(values, update, theirs, limit, hidden)
    if name is None:
        less = clipped_as([inverse(each) for each in values], update, mine, limit, hidden)
        return less and turned(less, "")[0]
    return name


def limit_of(run: Identified) -> Number | None:
    """To what norm a run clips all tensors together, where that shows."""
    way = way_of(run)
    return way.to if way is not None and way.kind == "together" else limit_of_sums(run)


def clipped_as(
    values: Sequence[Number], update: int, run: Identified, limit: Number, hidden: bool
) -> str | None:
    """The name of clipping in mid-window that gives the micro-batches of a run these weights.

    hidden: whether they are only known beside each other, as their sum is clipped before it shows.
    """
    values = beside_common(values) if hidden else values
    for name, each in clipped_within(run, update, limit.value).items():
        weights = [Number(weight, limit.error / limit.value * weight) for weight in each]
        weights = beside_common(weights) if hidden else weights
        if len(weights) == len(values) and all(map(Number.equals, values, weights)):
            return name
    return None


def beside_common(weights: Sequence[Number]) -> list[Number]:
    """Weights beside the one that most of them have."""
    common = in_common(weights)
    return [each.over(common) for each in weights]


def clipped_within_findings(run: Identified) -> Iterator[Finding]:
    """That a run clips in mid-window, as the weights of its own micro-batches say."""
    limit = limit_of(run)
    if limit is None:
        return
    hidden = cut_sums(run)
    for update, (fitted, count) in run.window.items():
        weights = fitted.coefficients[:count]
        if not fitted.exact or all(each.equals(weights[0]) for each in weights):
            continue
        name = clipped_as(weights, update, run, limit, update in hidden)
        if name is not None:
            said = ", ".join(worded(each.value, each.error) for each in weights)
            said = (
                f"its micro-batches enter with the weights {said}, as a clip to {limit} gives them"
            )
            yield Finding(name, "window", said, update, phase="gradient")
            return


def later(counts: Sequence[Mapping[int, int]]) -> Iterator[list[int]]:
    """Of how many micro-batches each update after the first is made, in some runs."""
    for update in set.intersection(*(set(each) for each in counts)) - {1}:
        yield [each[update] for each in counts]


def entering(run: Identified) -> dict[int, int]:
    """By update, of how many micro-batches it is known to be made."""
    return {
        update.number: max(update.micro_batches, len(data_of(update)))
        - run.lost.get(update.number, 0)
        for update in run.steps.trace.updates
    }


def either_name(values: Sequence[Number], count: int, whole: int) -> tuple[str, str]:
    """What one of the runs does otherwise, by a window's coefficients, and what to say of it."""
    kinds = {value.value if value.value in (0.0, math.inf) else 1.0 for value in values}
    if math.inf in kinds and kinds != {0.0, math.inf}:
        return turned(*window_name([inverse(value) for value in values], count, whole))
    own = window_name(values, count, whole)
    if not all(value.value for value in values):
        return own
    of_first = window_name([inverse(value) for value in values], count, whole)
    # A shorter window's share of K may be 1 / K, too, which longer ones would have shown before.
    better = of_first[0] == LEFTOVER or (own[0] in UNNAMED and of_first[0] not in UNNAMED)
    return turned(*of_first) if better and own[0] != LEFTOVER else own


def inverse(number: Number) -> Number:
    """The weight the other way round, 0 for what is all that there is, which is so for 0."""
    if not number.value:
        return Number(math.inf, 0.0)
    return Number(0.0, 0.0) if math.isinf(number.value) else NOTHING.over(number)


def emptied(run: Identified, other: Identified | None) -> dict[int, Told]:
    """By update, in which the accumulator was emptied, unless all are so: a name, what to say.

    Where another run has fewer micro-batches, or more, it is said how the windows are cut.
    """
    lost = {
        update: lost
        for update, lost in run.lost.items()
        if lost and run.left_out[update] == run.left_out.get(update - 1, 0)
    }
    counts = {update: count for update, (_, count) in run.window.items()}
    if len(lost) >= sum(count > 1 for count in counts.values()):
        return {}
    whole = max((counts[update] - run.lost[update] for update in counts), default=1)
    found = {}
    for update, first in lost.items():
        if other is not None and other.window.get(update, (None, 0))[1] != counts[update]:
            continue
        said = f"the accumulator was emptied within update {update}, after micro-batch {first} of"
        said += f" {counts[update]}"
        if counts[update] - first == whole:
            said += ": what is left of an epoch enters no update"
            found[update] = Told("leftover-dropped", said)
            continue
        why = "as a validation that resets gradients does, or a run that is resumed there"
        found[update] = Told("micro-batches left out", f"{said}, {why}")
    return found


def unlike_sums(run: Identified) -> dict[int, Told]:
    """By update, what else was accumulated, up to where something is left of a window before."""
    first = min(again(run), default=math.inf)
    return {update: told for update, told in other_sums(run).items() if update < first}


def again(run: Identified) -> dict[int, Told]:
    """By update, which micro-batches of the window before enter it again: a name, what to say."""
    found = {}
    for update, (fitted, count) in run.window.items():
        weights, before = fitted.coefficients[:count], fitted.coefficients[count:]
        more = [n.value for n in before if math.isfinite(n.error) and not n.equals(0.0)]
        if fitted.exact and more:
            each_again = ", ".join(worded(each) for each in more)
            first = run.before(run.steps.trace.updates[update - 1])[-1].number
            since = f"of update {first}" if first == update - 1 else f"since update {first}"
            said = (
                f"{len(more)} of the {len(before)} micro-batches {since} enter"
                f" update {update} again, with weight {each_again} where its own"
                f" have {worded(weights[0].value)}"
            )
            name = "missing-zero-grad" if 2 * len(more) >= len(before) else "leftover-leaks"
            found[update] = Told(name, said)
    return found


# One micro-batch in place of all of a window's.
REUSED = "reuse-one-microbatch"
# A window that is shorter than others, and divided as they are.
LEFTOVER = "leftover-divided-by-k"
# What weights are called that are none of the known ones.
UNNAMED = {"other weights", "another factor", "other weights by tensor", "another sum"}


def window_name(values: Sequence[Number], count: int, whole: int) -> tuple[str, str]:
    """The name of a window's coefficients, which are not all 1, and what to say of them.

    count: how many micro-batches it has; whole: how many one that is not the last of an epoch.
    """
    weights = ", ".join(worded(each.value) for each in values)
    said = f"the weights of its micro-batches, beside the right ones, are {weights}"
    none = [index + 1 for index, each in enumerate(values) if each.value == 0.0]
    some = [each for each in values if each.value != 0.0]
    entered = [index + 1 for index, each in enumerate(values) if math.isinf(each.value)]
    if none and entered and len(entered) == len(some):
        said = f"micro-batch {', '.join(map(str, entered))} enters the update, and not"
        return "other micro-batches", f"{said} {', '.join(map(str, none))}"
    if not some:
        return "never-updates", f"none of its {count} micro-batches enters the update"
    if values[0].equals(float(count)) and len(some) == 1 < len(values):
        return REUSED, f"the first of its {count} micro-batches enters {count} times, and no other"
    if none and all(each.equals(1.0) for each in some):
        which = ", ".join(map(str, none))
        if len(some) == 1 and values[-1].value:
            return "zero-per-microbatch", "the last micro-batch of a window alone enters the update"
        return "micro-batches left out", f"micro-batch {which} of {count} enters no update"
    first = some[0]
    if all(each.equals(first) for each in some) and not none:
        factor = first.value
        if count < whole and first.equals(count / whole):
            said = f"a window of {count} of {whole} micro-batches is divided by {whole}"
            return LEFTOVER, said
        for name, right in (("no-divide", float(count)), ("divide-twice", 1 / count)):
            if count > 1 and abs(factor / right - 1) <= first.error / right:
                return (
                    name,
                    f"the gradient is {worded(factor)} times the right one, with K = {count}",
                )
        if first.equals(-1.0):
            return "sign-flipped", "the gradient has the other sign"
        return (
            "another factor",
            f"the gradient is {worded(factor, first.error)} times the right one",
        )
    if all(each.equals(float(count - index)) for index, each in enumerate(values)):
        return "summed-loss-backward", f"{said}: each backward pass is of all losses so far"
    if not none:
        total = sum(1 / each.value for each in values)
        error = sum(each.error / each.value**2 for each in values)
        # Of a micro-batch of n of N examples, a mean of means makes N / (K n).
        if abs(total - count) <= error:
            return "mean-of-means", f"{said}: each micro-batch counts alike, whatever its size"
        if abs(total - 1) <= error:
            return "no-divide", f"{said}: the micro-batches' means are summed"
    return "other weights", said
