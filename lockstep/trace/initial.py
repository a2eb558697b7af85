"""A run's initial parameters as another framework holds them, so that both begin at one point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.trace.fused import LAYERS, parts, split, split_shapes
from lockstep.trace.layouts import Tensor, named, renamed, shaped, way
from lockstep.trace.matching import constant
from lockstep.trace.names import likeness
from lockstep.trace.partners import Partners, Unit, given_partners, partners, units
from lockstep.trace.reading import Trace, TraceError, read, read_names
from lockstep.trace.recurrent import BIASES, fitted, given, made, taken

Array = np.ndarray[Any, Any]
FRAMEWORKS = ("pytorch", "jax", "keras")


@dataclass(frozen=True, eq=False)
class Placed:
    """A tensor of the other side.

    name: there; sources: the first run's tensors that it is made of; how: in words; by_convention:
    whether its shape leaves other layouts; by_shape: whether names say nothing of it.
    """

    name: str
    sources: tuple[str, ...]
    array: Array = field(repr=False)
    how: str = ""
    by_convention: bool = False
    by_shape: bool = False


@dataclass(frozen=True, eq=False)
class Initial:
    """The initial parameters of a run as another framework has them.

    placed: the other side's tensors; left, other_left: what could not be placed on the first side,
    and what nothing was found for on the other, each with what is known of it.
    """

    run: Trace
    to: str
    like: Trace | None
    placed: Sequence[Placed]
    left: Mapping[str, str]
    other_left: Mapping[str, str]

    @property
    def complete(self) -> bool:
        """Whether each tensor of both sides has its counterpart."""
        return not self.left and not self.other_left

    @property
    def arrays(self) -> dict[str, Array]:
        """The tensors by name."""
        return {each.name: each.array for each in self.placed}


def initial_values(
    run: str | Path,
    to: str,
    like: str | Path | None = None,
    names: Mapping[str, str | None] | str | Path | None = None,
) -> Initial:
    """The initial parameters of a recorded run, as they stand before its first update.

    to: the framework that is to have them; like: a trace of the model there, for its names and
    shapes; without one, they are those of the framework's own layers. names: the first run's
    parameters to the other's (or to None: it has none), or a JSON file of them.

    Raises TraceError where a trace or the names cannot be read, or a tensor cannot have the shape
    of the one that it was named for.
    """
    trace = read(run)
    if to not in FRAMEWORKS:
        raise TraceError(f"--to: {to} is not known, choose from {', '.join(FRAMEWORKS)}")
    other = None if like is None else read(like)
    if other is not None and other.framework != to:
        raise TraceError(f"--like: {like} was recorded in {other.framework}, and --to says {to}")
    values = trace.begins
    known = checked(names, trace, other)
    if other is None:
        return by_convention(trace, to, values, known)
    return by_names(trace, other, values, known)


def checked(
    names: Mapping[str, str | None] | str | Path | None, trace: Trace, like: Trace | None
) -> dict[str, str | None]:
    """The names that somebody gave; raises TraceError where they are none of the runs'."""
    if names is None:
        return {}
    names = read_names(names)
    if not isinstance(names, Mapping) or not all(
        other is None or (isinstance(other, str) and other) for other in names.values()
    ):
        raise TraceError("the names must be a JSON object: the first run's to the other's, or null")
    others = [other for other in names.values() if other is not None]
    for side, of in ((names, trace), (others, like)):
        lost = [name for name in side if of is not None and name not in of.parameters]
        if of is not None and lost:
            raise TraceError(
                f"{lost[0]!r}: no parameter of {of.folder}; {nearest(lost[0], of.parameters)}"
            )
    twice = next((other for other in others if others.count(other) > 1), None)
    if twice is not None:
        raise TraceError(f"{twice!r} is named for two parameters of {trace.folder}; name one")
    return dict(names)


def by_names(
    trace: Trace, like: Trace, values: Mapping[str, Array], known: Mapping[str, str | None]
) -> Initial:
    """The values under the names and in the shapes of a model that was recorded there."""
    theirs = shapes(like)
    left: dict[str, str] = {}
    order = list(theirs).index
    placed = sorted(paired(trace, like, values, known, left), key=lambda each: order(each.name))
    found = {each.name for each in placed}
    used = {name for each in placed for name in each.sources} | set(known)
    lost = [name for name in theirs if name not in found]
    for name in values:
        if name not in used:
            left.setdefault(name, nearest(name, lost))
    other_left = {name: nearest(name, list(left)) for name in lost}
    placed += [
        replace(each, name=alias, how="tied")
        for each in list(placed)
        for alias in tied(like).get(each.name, ())
        if alias not in found
    ]
    return Initial(trace, like.framework, like, placed, left, other_left)


def paired(
    trace: Trace,
    like: Trace,
    values: Mapping[str, Array],
    known: Mapping[str, str | None],
    left: dict[str, str],
) -> list[Placed]:
    """The other side's tensors; into `left` goes what is known to have no place, with why.

    Raises TraceError where named tensors cannot be each other.
    """
    theirs = shapes(like)
    mine_of = parts(trace.framework, {name: a.shape for name, a in values.items()}, known)
    theirs_of = parts(like.framework, theirs, [name for name in known.values() if name])
    values, theirs = split(values, mine_of), split_shapes(theirs, theirs_of)
    mine = units(trace.framework, {name: array.shape for name, array in values.items()})
    try:
        pairs, first, second = given_partners(mine, units(like.framework, theirs), known)
    except ValueError as error:
        raise TraceError(f"{error}; name another") from None
    placed: list[Placed] = []
    for each in [*pairs, *partners(first, second)]:
        placed += module_placed(values, each, left)
    placed += copies(trace, like, values, theirs, {each.name for each in placed})
    placed = [
        replace(
            each, sources=tuple(dict.fromkeys(mine_of.get(name, name) for name in each.sources))
        )
        for each in placed
    ]
    return joined(placed, theirs_of)


def joined(placed: Sequence[Placed], of: Mapping[str, str]) -> list[Placed]:
    """The tensors, with fused ones in the place of their parts, where all of these are there."""
    found = [each for each in placed if each.name not in of]
    by_name = {each.name: each for each in placed}
    for fused in dict.fromkeys(of.values()):
        each = [by_name[part] for part, name in of.items() if name == fused and part in by_name]
        if len(each) == len(LAYERS):
            sources = dict.fromkeys(name for one in each for name in one.sources)
            array = np.concatenate([one.array for one in each])
            convention, shape = any(e.by_convention for e in each), any(e.by_shape for e in each)
            found.append(Placed(fused, tuple(sources), array, "fused", convention, shape))
    return found


def shapes(trace: Trace) -> dict[str, tuple[int, ...]]:
    """The shapes of a run's parameters."""
    recorded = {each["name"]: tuple(each["shape"]) for each in trace.facts["parameters"]}
    return {name: recorded[name] for name in trace.parameters}


def tied(trace: Trace) -> dict[str, list[str]]:
    """The other names of parameters that are used under several."""
    return {each["name"]: list(each.get("tied") or ()) for each in trace.facts["parameters"]}


def one_placed(
    values: Mapping[str, Array], mine: Tensor, theirs: Tensor, by_shape: bool = False
) -> Placed:
    """A tensor as the one that it is there."""
    found = way(mine, theirs)
    assert found is not None  # whoever pairs tensors has looked
    array = values[mine.name]
    moved = array.reshape(found.flat).transpose(found.axes).reshape(theirs.shape)
    how = ["transposed"] if found.turned else []
    if sorted(mine.shape) != sorted(theirs.shape):
        how.append(f"of shape {theirs.shape}")
    open_to_others = not found.sure and not constant(array)
    return Placed(
        theirs.name, (mine.name,), np.ascontiguousarray(moved), ", ".join(how),
        open_to_others, by_shape or not found.expected,
    )  # fmt: skip


def module_placed(
    values: Mapping[str, Array], pair: Partners, left: dict[str, str]
) -> list[Placed]:
    """The tensors of a module; into `left` goes what it has no place for, with why."""
    mine, theirs = pair.mine, pair.theirs
    if mine.cell is not None and theirs.cell is not None:
        try:
            return cell_placed(values, mine, theirs, pair.by_shape)
        except ValueError as error:
            left |= dict.fromkeys(mine.names, f"{theirs.cell.module} is another cell: {error}")
            return []
    return [
        one_placed(values, mine.tensors[kind], other, pair.by_shape)
        for kind, other in theirs.tensors.items()
        if kind in mine.tensors
    ]


def cell_placed(
    values: Mapping[str, Array], mine: Unit, theirs: Unit, by_shape: bool = False
) -> list[Placed]:
    """The tensors of a recurrent cell; raises ValueError where it is another kind of cell."""
    assert mine.cell is not None
    assert theirs.cell is not None
    gates, added = fitted(taken(mine.cell, values), theirs.cell)
    arrays = given(theirs.cell, gates)
    found = []
    for each in theirs.cell.held:
        bias = each.sides[0] in BIASES
        words = sorted({added[g] for g in each.gates if bias and g in added})
        # An added bias is made of both sides'.
        sides = BIASES if words else each.sides
        sources = tuple(
            held.name
            for held in mine.cell.held
            if set(held.sides) & set(sides) and set(held.gates) & set(each.gates)
        )
        gates_of = f"gate{'s' if len(each.gates) > 1 else ''} {', '.join(each.gates)}"
        how = ", ".join([gates_of, *words])
        found.append(Placed(each.name, sources, arrays[each.name], how, True, by_shape))
    return found


def copies(
    trace: Trace,
    like: Trace,
    values: Mapping[str, Array],
    theirs: Mapping[str, tuple[int, ...]],
    done: set[str],
) -> list[Placed]:
    """What is a tensor of its own there, and another name of a tied one here."""
    of = {alias: name for name, others in tied(trace).items() for alias in others if name in values}
    aliases = {alias: values[name] for alias, name in of.items()}
    mine = units(trace.framework, {alias: array.shape for alias, array in aliases.items()})
    open_units = [u for u in units(like.framework, theirs) if not set(u.names) & done]
    found = [
        placed for each in partners(mine, open_units) for placed in module_placed(aliases, each, {})
    ]
    return [replace(each, sources=tuple(of[name] for name in each.sources)) for each in found]


def nearest(name: str, others: Sequence[str]) -> str:
    """Which of the other names looks most like it."""
    if not others:
        return "nothing is left that it could be"
    return f"nearest: {max(others, key=lambda other: (likeness(name, other), other))}"


def by_convention(
    trace: Trace, to: str, values: Mapping[str, Array], known: Mapping[str, str | None]
) -> Initial:
    """The values under the names and in the layouts of a framework's own layers."""
    placed: list[Placed] = []
    left: dict[str, str] = {}
    if trace.framework != to:
        shapes_here = {name: array.shape for name, array in values.items()}
        values = split(values, parts(trace.framework, shapes_here, known))
    for unit in units(trace.framework, {name: array.shape for name, array in values.items()}):
        if unit.cell is None:
            placed += [
                one_placed(values, mine, usual(mine, unit, to, known.get(mine.name)))
                for mine in unit.tensors.values()
                if known.get(mine.name, "") is not None
            ]
            continue
        if within := set(unit.names) & set(known):
            raise TraceError(f"{min(within)!r} is a part of a cell; name its names with --like")
        try:
            placed += cell_placed(values, unit, usual_cell(unit, trace.framework, to))
        except ValueError as error:
            left |= dict.fromkeys(unit.names, str(error))
    names = [each.name for each in placed]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise TraceError(
            f"two parameters of {trace.folder} would be {twice!r}; name one with --map"
        )
    return Initial(trace, to, None, placed, left, {})


def usual(mine: Tensor, unit: Unit, to: str, name: str | None) -> Tensor:
    """A tensor as a framework's own layer holds it."""
    if name is None:
        norm = len(unit.tensors.get("weight", mine).shape) == 1 and "weight" in unit.tensors
        name = mine.name if mine.framework == to else named(mine, to, norm)
    return shaped(mine, name, to)


def usual_cell(unit: Unit, source: str, to: str) -> Unit:
    """A recurrent cell as a framework's own layer holds it; raises ValueError where none does."""
    assert unit.cell is not None
    if source == to:
        return unit
    module = renamed(unit.name, source, to)
    return Unit(module, {}, made(to, module, unit.cell))
