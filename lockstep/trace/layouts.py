"""The layouts and names that each library's own layers have, and the way from one to another.

PyTorch's matrices are (out, in) and its convolutions (out, in, height, width); kernels in JAX and
Keras are (in, out) and (height, width, in, out), those of attention (width, heads, head width).
Embeddings are never transposed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, permutations
from operator import mul

from lockstep.trace.matching import MOST_AXES
from lockstep.trace.names import ALIKE, WORD

Shape = tuple[int, ...]
KERNELS = ("kernel", "w")
EMBEDDINGS = ("embedding", "embeddings")
# Words of a module whose matrix is looked up, and not multiplied by.
LOOKED_UP = frozenset({"embedding", "embeddings", "embed", "emb", "positions", "wte", "wpe"})
# Words of a module with heads.
ATTENTION = frozenset({"attention", "attn", "query", "key", "value", "mha"})
OUT = frozenset({"out", "output", "o"})
NUMBERED = re.compile(r"(^|\.)(\d+)(?=\.|$)")


@dataclass(frozen=True)
class Tensor:
    """A parameter of a model: its name there, its shape, and that of the bias beside it, if any."""

    name: str
    shape: Shape
    framework: str
    bias: Shape | None = None

    @property
    def module(self) -> str:
        """The module that it stands in."""
        return self.name.rpartition("." if self.framework == "pytorch" else "/")[0]

    @property
    def leaf(self) -> str:
        """Its own name."""
        return self.name[len(self.module) :].lstrip("./")

    @property
    def words(self) -> list[str]:
        """The words of its module's name."""
        return WORD.findall(self.module.lower())

    @property
    def kind(self) -> str:
        """What it is, whatever its library calls it."""
        return ALIKE.get(self.leaf, self.leaf)

    @property
    def kernel(self) -> bool:
        """Whether its last axes are its outputs."""
        return self.framework != "pytorch" and self.leaf in KERNELS and len(self.shape) > 1

    @property
    def matrix(self) -> bool:
        """Whether its first axis is its outputs, or may be."""
        return self.framework == "pytorch" and self.leaf == "weight" and len(self.shape) > 1

    @property
    def heads(self) -> bool:
        """Whether it is a kernel of attention, with an axis for the heads."""
        if not self.kernel or len(self.shape) != 3:
            return False
        return len(self.bias or ()) == 2 or bool(ATTENTION & set(self.words))

    @property
    def outputs(self) -> int:
        """How many of a kernel's last axes are its outputs: as many as its bias has."""
        if self.bias is not None:
            return len(self.bias)
        return len(self.shape) - 1 if self.heads and self.words[-1] not in OUT else 1


@dataclass(frozen=True)
class Way:
    """How one tensor becomes another: its shape first, its axes then; why that way.

    sure: whether the shapes leave no other way; expected: whether it is what convention says.
    """

    flat: Shape
    axes: tuple[int, ...]
    sure: bool
    expected: bool = True

    @property
    def turned(self) -> bool:
        """Whether axes change their places."""
        return self.axes != tuple(range(len(self.axes)))


def way(source: Tensor, target: Tensor) -> Way | None:
    """How a tensor becomes another: by convention, or else by the only way that the shapes leave.

    None where there is none, or there are several and convention is none of them.
    """
    flat, axes = conventional(source, target)
    if len(flat) > MOST_AXES:
        return Way(flat, axes, True) if flat == target.shape else None
    found = fitting(flat, target.shape)
    if axes in found:
        return Way(flat, axes, len(found) == 1)
    return Way(flat, found[0], True, expected=False) if len(found) == 1 else None


def conventional(source: Tensor, target: Tensor) -> tuple[Shape, tuple[int, ...]]:
    """The shape to read a tensor in, and the order of its axes, as the libraries have them."""
    shape = source.shape
    count = len(shape)
    if source.kernel and target.matrix:
        if len(target.shape) == 2:
            ends = [(math.prod(shape[:axis]), math.prod(shape[axis:])) for axis in range(1, count)]
            return next((e for e in ends if e[::-1] == target.shape), ends[0]), (1, 0)
        return shape, (count - 1, count - 2, *range(count - 2))
    if source.matrix and target.kernel:
        return shape, (*range(2, count), 1, 0)
    return shape, tuple(range(count))


@lru_cache(maxsize=4096)  # a model has few shapes
def fitting(shape: Shape, wanted: Shape) -> tuple[tuple[int, ...], ...]:
    """The orders of axes in which an array of a shape reads as one of another.

    Axes of length 1 are no others, wherever they stand.
    """
    found: dict[tuple[int, ...], tuple[int, ...]] = {}
    if math.prod(shape) != math.prod(wanted):
        return ()
    for axes in permutations(range(len(shape))):
        order = tuple(axis for axis in axes if shape[axis] != 1)
        if order not in found and refines([shape[axis] for axis in axes], wanted):
            found[order] = axes
    return tuple(found.values())


def refines(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether one shape is the other with some neighbouring axes in one."""
    ends = [set(accumulate(shape, mul, initial=1)) for shape in (one, other)]
    return math.prod(one) == math.prod(other) and (ends[0] <= ends[1] or ends[1] <= ends[0])


def named(source: Tensor, framework: str, norm: bool) -> str:
    """A tensor's name by the conventions of a framework; norm: whether its module normalises."""
    module = renamed(source.module, source.framework, framework)
    leaf = source.leaf
    if source.kind == "weight":
        looked_up = source.leaf in EMBEDDINGS or (
            source.matrix and bool(LOOKED_UP & set(source.words[-1:]))
        )
        leaf = {
            "pytorch": "weight",
            "jax": "embedding" if looked_up else "scale" if norm else "kernel",
            "keras": "embeddings" if looked_up else "gamma" if norm else "kernel",
        }[framework]
    elif source.kind == "bias":
        leaf = "beta" if norm and framework == "keras" else "bias"
    separator = "." if framework == "pytorch" else "/"
    return f"{module}{separator}{leaf}" if module else leaf


def renamed(module: str, source: str, target: str) -> str:
    """A module's name by the conventions of a framework."""
    if source != "pytorch" or target == "pytorch":
        return module.replace("/", ".") if target == "pytorch" else module
    # A list of modules has no names: flax and Keras count them behind a word.
    counted = NUMBERED.sub(
        lambda found: f"_{found[2]}" if found[1] else f"layers_{found[2]}", module
    )
    return counted.replace(".", "/")


def shaped(source: Tensor, name: str, framework: str) -> Tensor:
    """A tensor as a framework's own layer holds it, under a name; heads cannot be made of one."""
    count = len(source.shape)
    target = Tensor(name, source.shape, framework, source.bias)
    shape = source.shape
    if source.kernel and target.matrix:
        if source.heads or count == 2:
            inputs = math.prod(shape[: count - source.outputs])
            shape = (math.prod(shape) // inputs if inputs else 0, inputs)
        else:
            shape = (shape[-1], shape[-2], *shape[:-2])
    elif source.matrix and target.kernel:
        shape = (*shape[2:], shape[1], shape[0])
    elif source.framework != framework == "pytorch" and source.kind == "bias":
        shape = (math.prod(shape),)
    return Tensor(name, shape, framework, source.bias)
