"""Recurrent cells: where each library holds the gates of a GRU, an LSTM or a plain cell.

PyTorch has them fused in the order r, z, n (i, f, g, o), outputs first; Keras fused in the order
z, r, n (i, f, g, o), outputs last, a GRU's two biases in one tensor; flax has a layer for each.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
# A gate of a cell: on which side it is (weight_ih, weight_hh, bias_ih, bias_hh), and its letter.
Gate = tuple[str, str]
# In which order the gates of a fused tensor stand, by their number.
ORDERS = {
    "pytorch": {1: "h", 3: "rzn", 4: "ifgo"},
    "keras": {1: "h", 3: "zrn", 4: "ifgo"},
}
TORCH = re.compile(r"(?:(.*)\.)?((?:weight|bias)_(?:ih|hh))(?:_l(\d+))?(_reverse)?")
FLAX = re.compile(r"(?:(.*)/)?([ih])([rznifgo])/(kernel|bias)")
KERAS_CELL = re.compile(r"[./](gru|lstm|simple_rnn)_cell$")
BIASES = ("bias_ih", "bias_hh")


@dataclass(frozen=True)
class Held:
    """What a tensor holds: sides, of which there are two where biases are stacked; gates in order.

    kernel: whether the outputs are its last axis.
    """

    name: str
    sides: tuple[str, ...]
    gates: str
    kernel: bool


@dataclass(frozen=True)
class Cell:
    """A recurrent cell, and the tensors that it is made of."""

    module: str
    held: tuple[Held, ...]
    units: int
    inputs: int

    @property
    def gates(self) -> frozenset[Gate]:
        """All gates that it holds."""
        return frozenset((side, g) for each in self.held for side in each.sides for g in each.gates)

    @property
    def letters(self) -> str:
        """The letters of its gates."""
        return "".join(sorted({letter for _, letter in self.gates}))

    def like(self, other: Cell) -> bool:
        """Whether it computes with as many gates, units and inputs."""
        return (self.letters, self.units, self.inputs) == (other.letters, other.units, other.inputs)


def cells(framework: str, shapes: Mapping[str, Shape]) -> list[Cell]:
    """The recurrent cells among tensors, by their names and shapes."""
    find = {"pytorch": torch_cells, "keras": keras_cells, "jax": flax_cells}[framework]
    return list(find(shapes))


def torch_cells(shapes: Mapping[str, Shape]) -> Iterator[Cell]:
    """PyTorch's, a cell for each layer and direction."""
    found: dict[tuple[str, str, str], dict[str, str]] = defaultdict(dict)
    for name in shapes:
        if named := TORCH.fullmatch(name):
            prefix, side, layer, back = named.groups(default="")
            found[prefix, layer, back][side] = name
    layers: dict[str, set[str]] = defaultdict(set)
    for prefix, layer, _ in found:
        layers[prefix].add(layer)
    for (prefix, layer, back), names in found.items():
        order = order_of("pytorch", shapes, names, outputs=0)
        if not order:
            continue
        held = tuple(Held(name, (side,), order, False) for side, name in names.items())
        parts = (prefix, layer if len(layers[prefix]) > 1 else "", back[1:])
        units, inputs = shapes[names["weight_hh"]][1], shapes[names["weight_ih"]][1]
        yield Cell(".".join(filter(None, parts)), held, units, inputs)


def keras_cells(shapes: Mapping[str, Shape]) -> Iterator[Cell]:
    """Keras'; a bias of two rows has the one of the inputs first."""
    for recurrent in shapes:
        module, _, leaf = recurrent.rpartition("/")
        names = {"weight_ih": f"{module}/kernel", "weight_hh": recurrent}
        if leaf != "recurrent_kernel" or names["weight_ih"] not in shapes:
            continue
        order = order_of("keras", shapes, names, outputs=1)
        if not order:
            continue
        held = [Held(name, (side,), order, True) for side, name in names.items()]
        bias = f"{module}/bias"
        if bias in shapes:
            held.append(Held(bias, BIASES if len(shapes[bias]) == 2 else BIASES[:1], order, False))
        yield Cell(module, tuple(held), shapes[recurrent][0], shapes[names["weight_ih"]][0])


def flax_cells(shapes: Mapping[str, Shape]) -> Iterator[Cell]:
    """flax', whose layers are called ir, hr, iz, ... (ii, hi, if, ...)."""
    found: dict[str, list[Held]] = defaultdict(list)
    for name in shapes:
        if named := FLAX.fullmatch(name):
            module, source, letter, leaf = named.groups(default="")
            side = f"{'bias' if leaf == 'bias' else 'weight'}_{source}h"
            found[module].append(Held(name, (side,), letter, leaf == "kernel"))
    for module, held in found.items():
        cell = Cell(module, tuple(held), 0, 0)
        wanted = {(side, g) for side in ("weight_ih", "weight_hh") for g in cell.letters}
        if cell.letters not in ("nrz", "fgio") or not wanted <= cell.gates:
            continue
        inputs, units = next(shapes[h.name] for h in held if h.sides == ("weight_ih",))
        yield Cell(module, tuple(held), units, inputs)


def order_of(
    framework: str, shapes: Mapping[str, Shape], names: Mapping[str, str], outputs: int
) -> str:
    """The order of the gates of a fused cell, by how many there are; "" where it is none."""
    if not {"weight_ih", "weight_hh"} <= set(names):
        return ""
    each = [shapes[names[side]] for side in ("weight_ih", "weight_hh")]
    if any(len(shape) != 2 for shape in each) or each[0][outputs] != each[1][outputs]:
        return ""
    count, rest = divmod(each[1][outputs], each[1][1 - outputs])
    return "" if rest else ORDERS[framework].get(count, "")


def taken(cell: Cell, arrays: Mapping[str, Array]) -> dict[Gate, Array]:
    """The gates of a cell, outputs first."""
    found: dict[Gate, Array] = {}
    for each in cell.held:
        array = arrays[each.name]
        for side, row in zip(each.sides, array if len(each.sides) > 1 else array[None]):
            parts = np.split(row.T if each.kernel else row, len(each.gates))
            found |= {(side, letter): part for letter, part in zip(each.gates, parts)}
    return found


def given(cell: Cell, gates: Mapping[Gate, Array]) -> dict[str, Array]:
    """The tensors of a cell, of its gates."""
    found = {}
    for each in cell.held:
        rows = [np.concatenate([gates[side, g] for g in each.gates]) for side in each.sides]
        array = np.stack(rows) if len(rows) > 1 else rows[0]
        found[each.name] = np.ascontiguousarray(array.T if each.kernel else array)
    return found


def fitted(gates: Mapping[Gate, Array], cell: Cell) -> tuple[dict[Gate, Array], dict[str, str]]:
    """The gates that a cell has, of another's, and what became of biases, by the gate's letter.

    Two biases that are added before anything else are one there; one is one and zeros.
    Raises ValueError where a GRU's two biases of n, between which r stands, would have to be one.
    """
    found = {gate: gates[gate] for gate in cell.gates if gate[0] not in BIASES}
    done: dict[str, str] = {}
    for letter in cell.letters:
        have = [(side, letter) for side in BIASES if (side, letter) in gates]
        want = [(side, letter) for side in BIASES if (side, letter) in cell.gates]
        if not want and any(gates[gate].any() for gate in have):
            raise ValueError("it has no bias there")
        if len(have) == 2 and len(want) == 1:
            if letter == "n" and all(gates[gate].any() for gate in have):
                raise ValueError("the two biases of its gate n cannot be one")
            found[want[0]] = gates[have[0]] + gates[have[1]]
            done[letter] = "its two biases added"
        elif len(have) == 1 and len(want) == 1:
            found[want[0]] = gates[have[0]]
        else:
            zeros = np.zeros_like(gates["weight_hh", letter][:, 0])
            found |= {gate: gates.get(gate, zeros) for gate in want}
            if have and len(have) < len(want):
                done[letter] = "one of its biases zeros"
    return found, done


def made(framework: str, module: str, cell: Cell) -> Cell:
    """A cell like another, under the names that a framework's own layers have.

    Raises ValueError where there is no convention.
    """
    count = len(cell.letters)
    biased = any(side in BIASES for side, _ in cell.gates)
    held: Sequence[Held]
    if framework == "jax":
        if count == 1:
            raise ValueError(
                "the names of a plain cell in JAX are not known: name them with --like"
            )
        # flax adds the biases that need not be apart: a GRU's are r and z, an LSTM's are all.
        biases = [*zip("iii", "rzn"), ("h", "n")] if count == 3 else [*zip("hhhh", "ifgo")]
        held = [
            Held(f"{module}/{s}{g}/kernel", (f"weight_{s}h",), g, True)
            for s in "ih"
            for g in cell.letters
        ]
        held += [Held(f"{module}/{s}{g}/bias", (f"bias_{s}h",), g, False) for s, g in biases]
    elif framework == "keras":
        order = ORDERS[framework][count]
        module += {1: "/simple_rnn_cell", 3: "/gru_cell", 4: "/lstm_cell"}[count]
        held = [
            Held(f"{module}/kernel", ("weight_ih",), order, True),
            Held(f"{module}/recurrent_kernel", ("weight_hh",), order, True),
            Held(f"{module}/bias", BIASES if count == 3 else BIASES[:1], order, False),
        ]
    else:
        module = KERAS_CELL.sub("", module)
        sides = ("weight_ih", "weight_hh", *BIASES)
        order = ORDERS[framework][count]
        held = [Held(f"{module}.{side}_l0", (side,), order, False) for side in sides]
    kept = [each for each in held if biased or each.sides[0] not in BIASES]
    return Cell(module, tuple(kept), cell.units, cell.inputs)
