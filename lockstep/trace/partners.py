"""Which module of one model is which of another's, by names and shapes alone: values may differ.

A module's number counts by its rank: 0, 2, 4 of a torch.nn.Sequential are 0, 1, 2 of others. Where
two names are as near, and the shapes fit both, nothing is guessed.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher

from lockstep.trace.layouts import Shape, Tensor, way
from lockstep.trace.names import WORD
from lockstep.trace.recurrent import Cell, cells

# What libraries and people call the same module; "" is nothing that tells modules apart.
SAME = {
    "q": "query", "k": "key", "v": "value", "o": "out", "output": "out", "attn": "attention",
    "mha": "attention", "fc": "dense", "linear": "dense", "lin": "dense", "ln": "norm",
    "bn": "norm", "layernorm": "norm", "batchnorm": "norm", "normalization": "norm",
    "embed": "embedding", "embeddings": "embedding", "emb": "embedding", "wte": "embedding",
} | dict.fromkeys(
    ("self", "proj", "batch", "layer", "layers", "block", "blocks", "multi", "dot",
     "product"), "",
)  # fmt: skip
COUNTED = re.compile(r"_\d+$")
CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
DIMENSIONS = re.compile(r"(?<=[a-z])[123]d(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Unit:
    """A module: its tensors, by what they are, or the recurrent cell that they make."""

    name: str
    tensors: Mapping[str, Tensor]
    cell: Cell | None = None

    @property
    def names(self) -> list[str]:
        """The names of all its tensors."""
        if self.cell is not None:
            return [each.name for each in self.cell.held]
        return [each.name for each in self.tensors.values()]


@dataclass(frozen=True, eq=False)
class Partners:
    """Two modules that are one; by_shape: whether their names say nothing of it."""

    mine: Unit
    theirs: Unit
    by_shape: bool


def units(framework: str, shapes: Mapping[str, Shape]) -> list[Unit]:
    """The modules of a model; a tensor that is neither weight nor bias is one of its own."""
    found = [Unit(each.module, {}, each) for each in cells(framework, shapes)]
    inside = {name for unit in found for name in unit.names}
    modules: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for tensor in tensors(framework, shapes):
        if tensor.name in inside:
            continue
        plain = tensor.kind in ("weight", "bias")
        modules[tensor.module if plain else tensor.name][tensor.kind if plain else "weight"] = (
            tensor
        )
    return found + [Unit(name, kinds) for name, kinds in modules.items()]


def tensors(framework: str, shapes: Mapping[str, Shape]) -> list[Tensor]:
    """The tensors of a model, each with the shape of the bias beside it."""
    plain = [Tensor(name, tuple(shape), framework) for name, shape in shapes.items()]
    biases = {each.module: each.shape for each in plain if each.kind == "bias"}
    return [Tensor(t.name, t.shape, framework, biases.get(t.module)) for t in plain]


def given_partners(
    mine: Iterable[Unit], theirs: Iterable[Unit], names: Mapping[str, str | None]
) -> tuple[list[Partners], list[Unit], list[Unit]]:
    """The tensors that somebody named for each other, what stands beside both, and the other units.

    Raises ValueError where two that were named cannot be each other.
    """
    first = {name: unit for unit in mine for name in unit.names}
    second = {name: unit for unit in theirs for name in unit.names}
    done = set(names), {other for other in names.values() if other is not None}
    found, beside = [], {}
    for name, other in names.items():
        if other is None:
            continue
        a, b = first[name], second[other]
        pair = Partners(alone(a, name), alone(b, other), False)
        if not fits(pair.mine, pair.theirs, alike=False):
            raise ValueError(
                f"{name} of {shown(a, name)} cannot become {other} of {shown(b, other)}"
            )
        done[0].update(pair.mine.names)
        done[1].update(pair.theirs.names)
        found.append(pair)
        beside[a.name] = a, b
    pairs = [(rest(a, done[0]), rest(b, done[1])) for a, b in beside.values()]
    for one, two in pairs:
        if fits(one, two, alike=False):
            found.append(Partners(one, two, False))
            done[0].update(one.names)
            done[1].update(two.names)
    found = list({(pair.mine.name, pair.theirs.name): pair for pair in found}.values())
    left = [
        [kept for unit in dict.fromkeys(side.values()) if (kept := rest(unit, taken)).names]
        for side, taken in zip((first, second), done)
    ]
    return found, left[0], left[1]


def alone(unit: Unit, name: str) -> Unit:
    """One tensor of a module as a unit, or the whole cell that it is a part of."""
    if unit.cell is not None:
        return unit
    return Unit(name, {"": next(each for each in unit.tensors.values() if each.name == name)})


def shown(unit: Unit, name: str) -> str:
    """What a tensor is, in words."""
    if unit.cell is not None:
        return f"a cell of {len(unit.cell.letters)} gates and {unit.cell.units} units"
    return f"shape {next(each.shape for each in unit.tensors.values() if each.name == name)}"


def rest(unit: Unit, taken: Collection[str]) -> Unit:
    """A module without some of its tensors; of a cell, nothing is left."""
    if unit.cell is not None:
        return Unit(unit.name, {}) if set(unit.names) & set(taken) else unit
    kinds = {kind: each for kind, each in unit.tensors.items() if each.name not in taken}
    return Unit(unit.name, kinds)


def partners(mine: Iterable[Unit], theirs: Iterable[Unit]) -> Iterator[Partners]:
    """Modules that are one: first those with the same tensors, then those with some."""
    first, second = {u.name: u for u in mine}, {u.name: u for u in theirs}
    spelling = spelled(first), spelled(second)
    for alike in (True, False):
        scores = {
            (a, b): SequenceMatcher(None, spelling[0][a], spelling[1][b]).ratio()
            for a in first
            for b in second
            if fits(first[a], second[b], alike)
        }
        while chosen := next(filter(None, (named_pairs(scores), only_pairs(scores))), None):
            for a, b in chosen:
                yield Partners(first.pop(a), second.pop(b), not scores[a, b])
            scores = {(a, b): s for (a, b), s in scores.items() if a in first and b in second}


def fits(mine: Unit, theirs: Unit, alike: bool) -> bool:
    """Whether each tensor of a module can become the other's; alike: both have the same ones."""
    if mine.cell is not None or theirs.cell is not None:
        return mine.cell is not None and theirs.cell is not None and mine.cell.like(theirs.cell)
    common = mine.tensors.keys() & theirs.tensors.keys()
    if alike and mine.tensors.keys() != theirs.tensors.keys():
        return False
    return bool(common) and all(way(mine.tensors[k], theirs.tensors[k]) for k in common)


def named_pairs(scores: Mapping[tuple[str, str], float]) -> list[tuple[str, str]]:
    """The pairs whose names are nearer to each other than to any other of fitting shapes."""
    rivals: dict[tuple[int, str], list[float]] = defaultdict(list)
    for (a, b), score in scores.items():
        rivals[0, a].append(score)
        rivals[1, b].append(score)

    def alone(score: float, each: list[float]) -> bool:
        return score == max(each) and each.count(score) == 1

    return [
        (a, b)
        for (a, b), score in scores.items()
        if score > 0 and alone(score, rivals[0, a]) and alone(score, rivals[1, b])
    ]


def only_pairs(scores: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
    """The pairs that fit nothing else."""
    mine, theirs = [a for a, _ in scores], [b for _, b in scores]
    return [(a, b) for a, b in scores if mine.count(a) == 1 and theirs.count(b) == 1]


def spelled(names: Collection[str]) -> dict[str, list[str]]:
    """The words of names, alike for all libraries; a number is its rank beside others like it."""
    parts = {name: tuple(re.split(r"[./]", name)) for name in names}
    # Keras' paths all begin with the model's name.
    shared = len(names) > 1 and len({each[0] for each in parts.values()}) == 1
    # Of dense, dense_1, ... the first is number 0.
    first = {
        (*each[:index], COUNTED.sub("", part))
        for each in parts.values()
        for index, part in enumerate(each)
        if COUNTED.search(part)
    }
    plain = {
        name: [
            word
            for index, part in enumerate(each)
            if index >= shared
            for word in plain_words(part + "_0" * (each[: index + 1] in first))
        ]
        for name, each in parts.items()
    }
    numbers: dict[tuple[str, ...], set[int]] = defaultdict(set)
    for each in plain.values():
        for index, word in enumerate(each):
            if word.isdigit():
                numbers[tuple(each[:index])].add(int(word))
    return {
        name: [
            str(sorted(numbers[tuple(each[:i])]).index(int(word))) if word.isdigit() else word
            for i, word in enumerate(each)
        ]
        for name, each in plain.items()
    }


def plain_words(part: str) -> list[str]:
    """The words of a part of a name, under one name for all libraries."""
    spaced = CAPITAL.sub(" ", DIMENSIONS.sub("", part)).lower()
    return [word for each in WORD.findall(spaced) if (word := SAME.get(each, each))]
