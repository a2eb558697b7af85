"""Two runs' forward passes over one micro-batch: the first module at which they part.

Modules belong together that hold the parameters which do. What one is called with is compared, and
then what it returns: where inputs part that follow from outputs which did not, the difference is
between the modules, in an operation that is none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import permutations, product
from typing import Literal

import numpy as np

from lockstep.trace.activations import before_activation
from lockstep.trace.matching import Matching
from lockstep.trace.reading import Array, Update

# The whole model, where it is the loss that is another one.
LOSS = ("",)
# How much nearer an array is to be, in other axes, than as it stands.
TURNED = 0.5
# Axes of more are compared in their own order alone.
MOST_AXES = 5
Kind = Literal["between", "inside", "around", "sizes", "loss", "nowhere"]


@dataclass(frozen=True, eq=False)
class Module:
    """What went into a module and came out of it, in one call."""

    name: str
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]


@dataclass(frozen=True, eq=False)
class Parting:
    """Where two forward passes part.

    kind: "between" modules, "inside" of one, "around" one whose inputs are of other sizes, of other
    "sizes" from one on, in the "loss", or "nowhere" in what was recorded.
    mine: the module whose inputs, or outputs, part. before: the modules whose outputs are the same
    in both runs, in order; missing: those that the second run never calls; ahead: all that returned
    before, in order. All are the first run's. got: what both have there, arranged alike.
    """

    kind: Kind
    mine: Module
    before: tuple[Module, ...]
    missing: tuple[Module, ...]
    ahead: tuple[Module, ...]
    got: tuple[Array, Array]

    @property
    def where(self) -> str:
        """In words, by the first run's names."""
        if self.kind == "inside":
            return f"inside of {called(self.mine.name)}"
        if self.kind == "between" and self.before:
            return f"between {called(self.before[-1].name)} and {called(self.mine.name)}"
        if self.kind == "around":
            return f"inside of {called(self.mine.name)}, or before: what it gets has another size"
        if self.kind == "sizes":
            here, there = self.got
            said = f"at {called(self.mine.name)}, or before: it gets an array of {there.shape}"
            if part_of(there, here):
                return f"{said}, in which that of the first run, of {here.shape}, is one part"
            if part_of(here, there):
                return f"{said}, which is one part of that of the first run, of {here.shape}"
            return f"{said}, and not of {here.shape}"
        if self.kind == "between":
            return f"before {called(self.mine.name)}"
        return "behind the model's outputs, in the loss" if self.kind == "loss" else "nowhere"

    @property
    def names(self) -> tuple[str, ...]:
        """The modules at which it is."""
        ahead = self.before[-1:] if self.kind in ("between", "around") else ()
        return tuple(dict.fromkeys(each.name for each in (*ahead, self.mine)))


def called(name: str) -> str:
    """A module's name; the whole model has none."""
    return name or "the model"


def recorded(update: Update) -> dict[str, Module]:
    """The modules of an update, in the order in which they returned."""

    def arrays(kind: str, name: str) -> tuple[Array, ...]:
        phases = [p for p in update.phases if re.fullmatch(rf"{kind}\.0(\.\d+)?", p)]
        each = (update.array(phase, name, whole=True) for phase in sorted(phases, key=numbered))
        return tuple(array for array in each if array is not None)

    return {
        name: Module(name, arrays("input", name), arrays("output", name))
        for name in update.facts.get("modules", ())
    }


def numbered(phase: str) -> list[int]:
    """The numbers in the name of a phase."""
    return [int(number) for number in re.findall(r"\d+", phase)]


def parting(mine: Update, theirs: Update, matching: Matching, floor: float) -> Parting | None:
    """Where the forward passes of an update part; None where they were not recorded."""
    ours, others = recorded(mine), recorded(theirs)
    before: list[Module] = []
    pairs = list(counterparts(ours, others, matching))
    if not pairs:
        return None
    called = {module.name for module, _ in pairs}
    missing = tuple(module for name, module in ours.items() if name not in called)
    order = [*ours]
    for module, other in pairs:
        ahead = tuple(ours[name] for name in order[: order.index(module.name)])
        given = inputs(module, other)
        if (got := apart(*given, floor)) is not None:
            return Parting("between", module, tuple(before), missing, ahead, got)
        if (got := apart(module.outputs, other.outputs, floor)) is not None:
            # A layer of Keras may have its activation inside, where it is PyTorch's next one.
            near = partial(within, floor=floor)
            plain = before_activation(*got, near, last=[module] == top(ours))
            if plain is not None:
                before.append(replace(module, outputs=(plain,)))
                continue
            kind: Kind = "inside" if not all(given) or comparable(*given) else "around"
            return Parting(kind, module, tuple(before), missing, ahead, got)
        before.append(module)
    last, other = pairs[-1]
    if not comparable(last.outputs, other.outputs):
        for module, its in pairs:
            sized = not any(comparable(*both) for both in ends(module, its))
            if sized and module.inputs and its.inputs:
                return Parting("sizes", module, (), missing, (), (module.inputs[0], its.inputs[0]))
    kind = "loss" if [last] == top(ours) and [other] == top(others) else "nowhere"
    outputs = last.outputs[0], other.outputs[0]
    return Parting(kind, last, tuple(before), missing, ahead, outputs)


def counterparts(
    ours: Mapping[str, Module], others: Mapping[str, Module], matching: Matching
) -> Iterator[tuple[Module, Module]]:
    """The modules that hold the same parameters, in the first run's order; at last, both models.

    Of several around the same ones, the innermost belong together, then those around them.
    """
    theirs = {other for match in matching.matches.values() for other in match.others}
    waiting: dict[frozenset[str], list[Module]] = {}
    for name, module in others.items():
        held = frozenset(other for other in theirs if holds(name, other))
        waiting.setdefault(held, []).append(module)
    for name, module in ours.items():
        held = frozenset(
            other
            for parameter, match in matching.matches.items()
            if holds(name, parameter)
            for other in match.others
        )
        if held and held != theirs and waiting.get(held):
            yield module, waiting[held].pop(0)
    tops = [module for modules in (ours, others) for module in top(modules)]
    if len(tops) == 2:
        yield tops[0], tops[1]


def holds(module: str, parameter: str) -> bool:
    """Whether a parameter is in a module, by their names."""
    return not module or parameter.startswith((f"{module}.", f"{module}/"))


def owner(parameter: str, modules: Collection[str]) -> str | None:
    """The innermost module that a parameter is in."""
    return max((name for name in modules if holds(name, parameter)), key=len, default=None)


def top(modules: Mapping[str, Module]) -> list[Module]:
    """The whole model, if it was recorded."""
    names = [*modules]
    return [modules[name] for name in names[-1:] if all(holds(name, e) or e == name for e in names)]


def apart(
    here: Sequence[Array], there: Sequence[Array], floor: float
) -> tuple[Array, Array] | None:
    """The first arrays that differ, arranged alike; None where none that can be compared does.

    One side may have a mask among them where the other is called with the values once more.
    """
    for one, other in zip(here, there, strict=False):
        if any(alike(one, each, floor) for each in there):
            continue
        if any(alike(each, other, floor) for each in here):
            continue
        read = arranged(one, other)
        if read is not None:
            return one, read
    return None


def inputs(module: Module, other: Module) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """What two modules are called with: without zeros around it where one alone was padded."""
    if comparable(module.inputs, other.inputs):
        return module.inputs, other.inputs
    return tuple(map(without_zeros, module.inputs)), tuple(map(without_zeros, other.inputs))


def ends(module: Module, other: Module) -> Iterator[tuple[Sequence[Array], Sequence[Array]]]:
    """What two modules get, and what they return."""
    yield module.inputs, other.inputs
    yield module.outputs, other.outputs


def part_of(batch: Array, part: Array) -> bool:
    """Whether an array is one part of a batch, as where several are put together for one call."""
    if not batch.ndim or batch.ndim != part.ndim or not part.size:
        return False
    if batch.shape[1:] != part.shape[1:] or len(batch) % len(part):
        return False
    parts = batch.reshape(-1, *part.shape)
    return len(parts) > 1 and any(np.array_equal(each, part) for each in parts)


def comparable(here: Sequence[Array], there: Sequence[Array]) -> bool:
    """Whether two arrays among these have one size."""
    return any(one.size == other.size for one, other in product(here, there))


def without_zeros(array: Array) -> Array:
    """An array without what is around it, if that is zeros."""
    places = np.nonzero(array) if array.ndim else ()
    return array[tuple(slice(each.min(), each.max() + 1) for each in places if each.size)]


def alike(one: Array, other: Array, floor: float) -> bool:
    """Whether an array is another one, in axes of its own."""
    read = arranged(one, other)
    return read is not None and distance(one, read) <= floor


def arranged(one: Array, other: Array) -> Array | None:
    """The other array in the axes of the first one, as they fit best; None of another size."""
    if one.size != other.size or not one.size or {one.dtype.kind, other.dtype.kind} - set("fiub"):
        return None
    if one.ndim != other.ndim or one.ndim > MOST_AXES:
        ways = [other.reshape(one.shape)]
    else:
        orders = permutations(range(other.ndim))
        turned = [other.transpose(order) for order in orders]
        ways = [each for each in turned if each.shape == one.shape] or [other.reshape(one.shape)]
    found = min(ways, key=lambda each: distance(one, each))
    if one.shape == other.shape and distance(one, found) > TURNED * distance(one, other):
        return other  # nothing shows that its axes are others
    return found


def within(one: Array, other: Array, floor: float) -> bool:
    """Whether two arrays are the same, but for rounding."""
    return distance(one, other) <= floor


def distance(one: Array, other: Array) -> float:
    """How far two arrays are apart, of the first one's norm; infinities may be equal."""
    first, second = one.astype(np.float64), other.astype(np.float64)
    differs = first != second
    gap = float(np.linalg.norm(first[differs] - second[differs]))
    size = float(np.linalg.norm(first[np.isfinite(first)])) or 1.0
    return gap / size if math.isfinite(gap) else math.inf
