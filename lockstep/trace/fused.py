"""Attention in PyTorch's own module: query, key and value fused, where others have a layer each."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
FUSED = re.compile(r"((?:.*\.)?)in_proj_(weight|bias)")
LAYERS = ("query", "key", "value")


def parts(framework: str, shapes: Mapping[str, Shape], but: Collection[str] = ()) -> dict[str, str]:
    """The tensors that fused ones are split into, each with the fused one's name.

    but: the names of those that stay whole.
    """
    return {
        f"{found[1]}{layer}.{found[2]}": name
        for name, shape in shapes.items()
        if (found := FUSED.fullmatch(name)) and framework == "pytorch" and name not in but
        if shape[0] % len(LAYERS) == 0
        for layer in LAYERS
    }


def split(arrays: Mapping[str, Array], of: Mapping[str, str]) -> dict[str, Array]:
    """The tensors, with the parts of fused ones in their place."""
    found = {name: array for name, array in arrays.items() if name not in of.values()}
    for fused in dict.fromkeys(of.values()):
        names = [part for part, name in of.items() if name == fused]
        found |= zip(names, np.split(arrays[fused], len(names)))
    return found


def split_shapes(shapes: Mapping[str, Shape], of: Mapping[str, str]) -> dict[str, Shape]:
    """The same of shapes."""
    found = {name: shape for name, shape in shapes.items() if name not in of.values()}
    thirds = {name: (shapes[name][0] // len(LAYERS), *shapes[name][1:]) for name in of.values()}
    return found | {part: thirds[name] for part, name in of.items()}
