"""Two runs' gradients of the same micro-batches from the same parameters: y = c x + r.

c, one number for a micro-batch, is with what weight it enters the update, beside the other run's: a
coefficient matrix of a real run. r, above what rounding leaves, is the model or the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import numpy as np

from lockstep.trace.data import data_of, strangers
from lockstep.trace.identify import NOTHING, Identified
from lockstep.trace.matching import Matching
from lockstep.trace.numbers import Number, agreed
from lockstep.trace.reading import STEPPED, UNSEEN, Array, Trace, Update
from lockstep.trace.weights import one_or_none
from lockstep.trace.whole import Both, Products, products, sampled, stored, whole

# How much more than the parameters the gradients may be apart that are taken at them.
CONDITION = 256.0
# By how much of their norm gradients may differ that are still compared, at such parameters.
FAR = 1e-2
# What share of the largest gradient's norm rounding is measured by, in a tensor of a smaller one.
CANCELLED = 0.1
# So many numbers are looked at for each weight that is solved for.
PULLED = 8
# How many times what is left over a coefficient may be off, where the model is another one.
MODEL = 3.0


# By tensor: what a micro-batch contributes to an update in either run.
Contributions = dict[str, Both]


@dataclass(frozen=True)
class Pair:
    """A micro-batch's contribution to an update in both runs.

    update: its number; micro_batch: from 0, or None of the whole window's; coefficient: c, infinite
    where it does not enter the first run's; rest: by tensor, the norm of r over that of y; floor:
    below which that is rounding; pulls: by tensor, how often the parameter itself is in r, which is
    then no part of the rest: a decay that one of the runs has in its loss.
    """

    update: int
    micro_batch: int | None
    coefficient: Number
    rest: Mapping[str, float]
    floor: float
    pulls: Mapping[str, Number] = field(default_factory=dict)

    @property
    def off(self) -> dict[str, float]:
        """The tensors whose gradients are another one, the worst first."""
        worst = sorted(self.rest, key=lambda name: -self.rest[name])
        return {name: self.rest[name] for name in worst if self.rest[name] > self.floor}

    @property
    def nothing(self) -> bool:
        """Whether the second run has no share of it."""
        return self.coefficient.value == 0.0


def pairs(
    mine: Identified,
    theirs: Identified,
    matching: Matching,
    rounding: float,
    until: int,
    cut: bool,
) -> Iterator[Pair]:
    """The micro-batches of all updates before one that begin at nearly the same parameters.

    rounding: how far that alone takes gradients apart, of their norm; cut: whether the update where
    it ends is only cut into another window, and may begin with the same data.
    """
    apart, last = 0.0, dict[str, tuple[Update, Update]]()
    for update in mine.steps.trace.updates[: until - 1 + cut]:
        other = theirs.steps.trace.update(update.number)
        if other is None:
            break
        # What has no counterpart is the same in both for as long as it has not moved.
        alone = moved(mine.steps.trace, matching.left, update)
        alone += moved(theirs.steps.trace, matching.other_left, other)
        # A sketch may be without the few numbers that are furthest apart: whole updates had them.
        apart = max(apart, distance(update, other, matching, alone, last))
        shown = {*other.phases.get("after", ())}
        for name in update.phases.get("after", ()):
            if name in matching.matches and {*matching.matches[name].others} <= shown:
                last[name] = update, other
        if CONDITION * apart > max(FAR, rounding):
            continue
        floor = max(rounding, CONDITION * apart)
        if update.number < until:
            yield from of_update(mine, theirs, matching, update, other, floor)
            continue
        for index, both in enumerate(zip(data_of(update), data_of(other), strict=False)):
            if strangers(*both):
                break
            each = compared(mine, theirs, matching, update, other, index, index, floor)
            if each is not None:
                yield each


def of_update(
    mine: Identified,
    theirs: Identified,
    matching: Matching,
    update: Update,
    other: Update,
    floor: float,
) -> list[Pair]:
    """The micro-batches of an update, in order; one that only one run saw has weight 0, or inf."""

    def pair(index: int | None, second: int | None) -> Pair | None:
        return compared(mine, theirs, matching, update, other, index, second, floor)

    count, others = update.micro_batches, other.micro_batches
    if update.number in mine.by_tensor and update.number in theirs.by_tensor:
        count = 0  # what else is in both is in their sums
    if not count or not others:
        return [each for each in [pair(None, None)] if each is not None]
    if count == others:
        found = [each for index in range(count) if (each := pair(index, index)) is not None]
        if any(each.off for each in found):
            sums = (summed_up(mine, theirs, matching, update, other, floor, run) for run in (1, 0))
            found = next(filter(None, sums), found)
        return found

    def alone(index: int, weight: float) -> Pair:
        return Pair(update.number, index, Number(weight, 0.0), {"": 0.0}, floor)

    # What was lost before is no part of an update.
    first = range(mine.lost.get(update.number, 0), count)
    second = range(theirs.lost.get(update.number, 0), others)
    ways = [
        aligned(first, second, pair, alone),
        aligned(first[::-1], second[::-1], pair, alone)[::-1],
    ]
    if not all(ways):
        ways = [way for way in ways if way] or [[each for each in [pair(None, None)] if each]]
    return min(ways, key=lambda way: sum(not each.coefficient.equals(1.0) for each in way))


def aligned(
    first: Sequence[int],
    second: Sequence[int],
    pair: Callable[[int, int], Pair | None],
    alone: Callable[[int, float], Pair],
) -> list[Pair]:
    """The micro-batches of two windows, each beside its own; empty where the fewer are not all."""
    found: list[Pair] = []
    here = there = 0
    while here < len(first) or there < len(second):
        more = (len(first) - here) - (len(second) - there)
        left = here < len(first) and there < len(second)
        each = pair(first[here], second[there]) if left else None
        if each is not None and not each.off:
            found.append(each)
            here, there = here + 1, there + 1
        elif more > 0:
            found.append(alone(first[here], 0.0))
            here += 1
        elif more < 0:
            found.append(alone(second[there], math.inf))
            there += 1
        else:
            return []
    return found


def beside_each_other(gradients: Sequence[Pair], updates: Mapping[int, bool]) -> Iterator[Pair]:
    """The same, in some updates with weights beside the one that most have, where that is hidden.

    As by a clip of the sum before it is seen. updates: whether what all have is hidden, too.
    """
    for update, window in groupby(gradients, key=lambda pair: pair.update):
        each = list(window)
        weights = [pair.coefficient for pair in each]
        alike = all(weight.equals(weights[0]) for weight in weights)
        hidden = updates.get(update, False) or (update in updates and not alike)
        common = in_common(weights) if hidden else NOTHING
        for pair in each:
            pulls = {name: weight.over(common) for name, weight in pair.pulls.items()}
            if math.isfinite(pair.coefficient.value):
                pair = replace(pair, coefficient=pair.coefficient.over(common), pulls=pulls)
            yield pair


def in_common(weights: Sequence[Number]) -> Number:
    """The weight that most of some have, of those that are any; of as many, the last one."""
    known = [each for each in weights if each.value and math.isfinite(each.value)]
    return max(known[::-1], key=lambda each: sum(map(each.equals, known)), default=NOTHING)


def moved(trace: Trace, names: Sequence[str], update: Update) -> float:
    """How far some parameters have moved before an update, squared."""
    found = 0.0
    for name in names:
        begun, now = trace.firsts[name].array("before", name), update.array("before", name)
        if begun is not None and now is not None and begun.shape == now.shape:
            found += float(((now - begun) ** 2).sum())
    return found


def distance(
    update: Update,
    other: Update,
    matching: Matching,
    alone: float,
    last: Mapping[str, tuple[Update, Update]],
) -> float:
    """How far the parameters of two updates are apart, of the first's norm.

    alone: how far those are that have no counterpart, squared; last: by tensor, both runs' last
    updates before that show it, for what no optimizer stepped since, and was not kept again.
    """
    begun = contributions(update, other, matching, "before", "before")
    for name in matching.matches.keys() & last.keys() - begun.keys():
        both = whole(*last[name], matching.matches[name], "after")
        begun |= {name: both} if both is not None else {}
    known = [products(each) for each in begun.values()]
    size = sum(each.first for each in known)
    return math.sqrt((alone + sum(each.apart for each in known)) / size) if size else 0.0


def got_alike(
    mine: Identified, theirs: Identified, matching: Matching, gradients: Sequence[Pair]
) -> bool:
    """Whether the rules of both runs get the same in each update whose gradients were compared."""
    floors = {pair.update: pair.floor for pair in gradients}
    for number, floor in floors.items():
        update, other = (run.steps.trace.updates[number - 1] for run in (mine, theirs))
        apart, size = 0.0, 0.0
        for name, match in matching.matches.items():
            phases = ["clipped" if name in each.phases.get("clipped", ()) else "accumulated"
                      for each, name in ((update, name), (other, match.others[0]))]  # fmt: skip
            weights = (
                clipped_by(mine, number, name, phases[0]),
                clipped_by(theirs, number, match.others[0], phases[1]),
            )
            both = whole(update, other, match, phases[0], phases[1], weights)
            if both is None:
                return False
            known = products(both)
            apart, size = apart + known.apart, size + known.first
        if apart > floor**2 * size:
            return False
    return bool(floors)


def clipped_by(run: Identified, update: int, name: str, phase: str) -> float:
    """What clipping that was not shown multiplied a gradient with, where that is known."""
    factor = run.factors.get((update, name)) if phase == "accumulated" else None
    return factor.coefficients[0].value if factor is not None and factor.exact else 1.0


def share(run: Identified, update: Update, index: int | None) -> float:
    """The weight with which a micro-batch enters the update, of its own gradient."""
    if index is None or update.number not in run.window:
        return 1.0
    # Of a sum that is not its micro-batches' in some tensors, the others tell.
    fits = [each for each in run.by_tensor.get(update.number, {}).values() if each.exact]
    number = agreed([each.coefficients[index] for each in fits])
    if number is None:
        number = run.window[update.number][0].coefficients[index]
    if not math.isfinite(number.error):
        return 1.0
    return one_or_none(number)


def compared(
    mine: Identified,
    theirs: Identified,
    matching: Matching,
    update: Update,
    other: Update,
    index: int | None,
    second_index: int | None,
    floor: float,
) -> Pair | None:
    """One micro-batch's gradient, or the accumulated one, in both runs; None if not shown."""
    phases = [
        "accumulated" if each is None else f"gradient.{each}" for each in (index, second_index)
    ]
    runs = update, other
    if any(UNSEEN in run.facts for run in runs) and all(STEPPED in run.phases for run in runs):
        # What one may have clipped before it was seen is compared with what the other has clipped.
        phases = [STEPPED, STEPPED]
    weights = share(mine, update, index), share(theirs, other, second_index)
    if weights[1] and not weights[0]:
        return Pair(update.number, index, Number(math.inf, 0.0), {"": 0.0}, floor)
    both = contributions(update, other, matching, phases[0], phases[1], weights)
    # The gradient of what neither run moves comes to nothing.
    idle = {n for n in mine.steps.still if {*matching.others([n])} <= theirs.steps.still}
    both = {name: each for name, each in both.items() if name not in idle}
    found = pair_of(update.number, index, both, floor)
    if found is None or not found.off:
        return found
    every = {name: stored(update, "before", name) for name in both}
    begun = {name: array for name, array in every.items() if array is not None}
    return pulled(found, both, begun) or found


def contributions(
    update: Update,
    other: Update,
    matching: Matching,
    phase: str,
    other_phase: str,
    weights: tuple[float, float] = (1.0, 1.0),
) -> Contributions:
    """What either run has in a phase, of the tensors that both show of one shape."""
    every = {
        name: whole(update, other, match, phase, other_phase, weights)
        for name, match in matching.matches.items()
    }
    return {name: both for name, both in every.items() if both is not None}


def pulled(pair: Pair, both: Contributions, begun: Mapping[str, Array]) -> Pair | None:
    """A pair whose rest is the parameters themselves; None where it is anything else."""
    names, seen = list(pair.off), {name: each.sampled for name, each in both.items()}
    size = sum(second.size for _, second in seen.values())
    if not begun.keys() >= set(names) or size < PULLED * (len(names) + 1):
        return None
    columns = [np.concatenate([first.ravel() for first, _ in seen.values()])]
    for name in names:
        own = sampled(begun[name])
        parts = [own if n == name else np.zeros_like(first) for n, (first, _) in seen.items()]
        columns.append(np.concatenate([part.ravel() for part in parts]))
    target = np.concatenate([second.ravel() for _, second in seen.values()])
    fitted, *_ = np.linalg.lstsq(np.stack(columns, axis=1), target, rcond=None)
    weights = dict(zip(names, fitted[1:].tolist(), strict=True))
    sure = [weight for name, weight in weights.items() if seen[name][0].size >= PULLED]
    if not all(any(math.isclose(w, n, rel_tol=0.1) for n in sure) for w in weights.values()):
        return None  # some weight explains any number alone
    less = dict(both)
    for name, weight in weights.items():
        every = both[name]
        second = np.multiply(every.second, every.weights[1], dtype=np.float64)
        less[name] = Both(every.first, second - weight * begun[name], (every.weights[0], 1.0))
    found = pair_of(pair.update, pair.micro_batch, less, pair.floor)
    if found is None or found.off:
        return None
    sizes = {
        n: float(np.linalg.norm(seen[n][1]) / np.linalg.norm(sampled(begun[n]))) for n in names
    }
    pulls = {name: Number(weights[name], pair.floor * sizes[name]) for name in names}
    return replace(found, pulls=pulls)


def pulls_of(gradients: Sequence[Pair]) -> dict[str, Number]:
    """By tensor: with what weight the parameter is in the second run's updates through its loss.

    Below 0 it is in those of the first run. From where the model is another one, what is left over
    may look like a parameter that has moved by little else.
    """
    found: dict[str, list[Number]] = {}
    until = min((pair.update for pair in gradients if pair.off), default=math.inf)
    for update in dict.fromkeys(e.update for e in gradients if e.pulls and e.update < until):
        window = [pair.pulls for pair in gradients if pair.update == update]
        for name in set().union(*window):
            each = [pulls[name] for pulls in window if name in pulls]
            total = Number(sum(n.value for n in each), sum(n.error for n in each))
            found.setdefault(name, []).append(total)
    return {name: agreed(each) or each[0] for name, each in found.items()}


def pair_of(number: int, index: int | None, both: Contributions, floor: float) -> Pair | None:
    """Two runs' contributions to an update, as one pair; None where there are none."""
    known = {name: products(each) for name, each in both.items()}
    largest = math.sqrt(max((each.first for each in known.values()), default=0.0))
    if not largest:
        return None
    coefficient = factor(list(known.values()), floor, largest)
    rest = left_over(both, known, coefficient.value, largest)
    worst = max(rest.values())
    if worst > floor:
        # Another gradient has another size, too: only what is more than that is another weight.
        sure = shared_factor(list(known.values()), floor, largest)
        value, error = coefficient.value, max(coefficient.error, MODEL * (floor if sure else worst))
        coefficient = Number(1.0 if abs(value - 1) <= error else value, error)
        rest = left_over(both, known, coefficient.value, largest)
    return Pair(number, index, coefficient, rest, floor)


def summed_up(
    mine: Identified,
    theirs: Identified,
    matching: Matching,
    update: Update,
    other: Update,
    floor: float,
    which: int,
) -> list[Pair]:
    """The micro-batches of an update whose gradients in one of the runs are of all losses so far.

    The first one enters as often as there are micro-batches. Empty where they are something else.
    which: 1 for the second run, 0 for the first.
    """
    count, before, found = update.micro_batches, dict[str, Array](), list[Pair]()
    for index in range(count):
        both: Contributions = {}
        phase = f"gradient.{index}"
        weights = share(mine, update, index), share(theirs, other, index)
        for name, each in contributions(update, other, matching, phase, phase).items():
            own = list(each.sampled)
            so_far, before[name] = before.get(name, np.zeros_like(own[which])), own[which]
            own[which] = own[which] - so_far
            both[name] = Both(own[0], own[1], weights)
        pair = pair_of(update.number, index, both, floor)
        if pair is None or pair.off:
            return []
        times = Number(float(count - index) if which else 1 / (count - index), 0.0)
        found.append(replace(pair, coefficient=pair.coefficient.times(times)))
    return found


def left_over(
    both: Contributions, known: Mapping[str, Products], coefficient: float, largest: float
) -> dict[str, float]:
    """By tensor, the norm of r over that of y.

    A tensor whose gradient is nearly nothing beside the largest has the rounding of what cancelled.
    """
    rest = {}
    for name, each in known.items():
        size = max(math.sqrt(each.second), CANCELLED * largest * abs(coefficient))
        apart = math.sqrt(each.apart) if coefficient == 1.0 else both[name].apart(coefficient)
        rest[name] = apart / size if size else 0.0
    return rest


def near(value: float, error: float) -> Number:
    """A coefficient, 1 or 0 if it may be that."""
    return Number(1.0 if abs(value - 1) <= error else 0.0 if abs(value) <= error else value, error)


def shared_factor(known: Sequence[Products], floor: float, largest: float) -> bool:
    """Whether most large tensors have one factor exactly, whatever others have."""
    large = large_of(known, largest)
    exact = [e.factor for e in large if e.rest <= floor * abs(e.factor) * math.sqrt(e.first)]
    most = 2 * len(exact) > len(large)
    return most and max(exact) - min(exact) <= 2 * floor * abs(exact[0])


def large_of(known: Sequence[Products], largest: float) -> list[Products]:
    """Those of the tensors whose gradients are not nearly nothing beside the largest."""
    return [each for each in known if math.sqrt(each.first) >= 1e-3 * largest]


def factor(known: Sequence[Products], floor: float, largest: float) -> Number:
    """c, as the tensor has it that it fits best; 1 if it is that but for rounding."""
    large = large_of(known, largest)
    rest, value = min((each.rest / math.sqrt(each.first), each.factor) for each in large)
    return near(value, max(rest, floor * max(abs(value), floor)))
