"""What is taken of a tensor in PyTorch: a copy, or a sketch, made on the tensor's device.

A recorder takes many small things in one update; they come to the host together, at its end.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lockstep.record.writer import RecordError, fingerprint, lattice

Array = np.ndarray[Any, Any]
# How many numbers a processor's cache holds.
PIECE = 1 << 17
# How many operations above a loss are looked through for the targets.
NODES = 64
HALVES = (torch.float16, torch.bfloat16)


@dataclass
class Held:
    """A tensor's copy on the host, or its sketch and perhaps norm, wherever the tensor is."""

    values: Any
    dtype: Any
    whole: bool
    norm: Any = None


def held(tensor: Any, whole: bool, measured: bool = False) -> Held:
    """Take a tensor, so that nothing which changes it later changes what is held."""
    tensor = dense(tensor)
    if whole:
        copy = tensor.to("cpu", widened(tensor.dtype), copy=True)
        return Held(copy, tensor.dtype, True)
    norm = norm_of(tensor) if measured else None
    return Held(sketch_of(tensor), tensor.dtype, False, norm)


def norm_of(tensor: Any) -> Any:
    """A tensor's norm."""
    dtype = tensor.dtype
    # Half precision would overflow where the tensor itself does not.
    within = torch.float32 if dtype in HALVES else None
    real = tensor if dtype.is_floating_point else tensor.double()
    if within is None and real.device.type == "cpu" and real.numel() > PIECE:
        # In float32, a sum of so many squares would lose digits.
        squares = [torch.dot(piece, piece) for piece in real.reshape(-1).split(PIECE)]
        return torch.stack(squares).sum(dtype=torch.float64).sqrt()
    return torch.linalg.vector_norm(real, dtype=within)


def sketch_of(tensor: Any) -> Any:
    """A tensor's sketch, in a type that NumPy has."""
    return sketched(tensor.detach()).to(widened(tensor.dtype))


def dense(tensor: Any) -> Any:
    """A tensor without its graph, in which every number has a place."""
    tensor = tensor.detach()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    return tensor


def widened(dtype: Any) -> Any:
    """The type that holds a type's values in NumPy."""
    if dtype.is_complex:
        raise RecordError("complex numbers cannot be recorded; split them in two real parameters")
    if dtype.is_floating_point and dtype not in (torch.float16, torch.float32, torch.float64):
        return torch.float32
    return dtype


def sketched(tensor: Any) -> Any:
    """The tensor at the indices that `writer.sketch` takes, in one operation, copied."""
    if not tensor.dim():
        return tensor.clone()
    flat, axes, shape = places(tuple(tensor.shape), tensor.device)
    if tensor.is_contiguous():
        return tensor.view(-1)[flat].view(shape)
    return tensor[axes]


@functools.lru_cache(maxsize=4096)
def places(shape: tuple[int, ...], device: Any) -> tuple[Any, Any, tuple[int, ...]]:
    """A sketch's places, counted through the tensor, and by axis; and the sketch's shape."""
    mesh = np.ix_(*(lattice(length, len(shape)) for length in shape))
    flat = np.ravel_multi_index(np.broadcast_arrays(*mesh), shape)
    axes = tuple(torch.from_numpy(axis).to(device) for axis in mesh)
    return torch.from_numpy(flat.ravel()).to(device), axes, flat.shape


def fetched(taken: Mapping[str, Held]) -> tuple[dict[str, Array], dict[str, Any]]:
    """What was taken as NumPy arrays, and what of it is a sketch, with its norm where that is."""
    names = list(taken)
    arrays = dict(zip(names, on_host([taken[name].values for name in names])))
    large = [name for name in names if taken[name].norm is not None]
    norms = dict(zip(large, map(float, on_host([taken[name].norm for name in large]))))
    return arrays, {name: norms.get(name) for name in names if not taken[name].whole}


def on_host(tensors: list[Any]) -> list[Array]:
    """Tensors as NumPy arrays; those of one device and type come in one copy."""
    groups: dict[tuple[Any, Any], list[int]] = {}
    for index, tensor in enumerate(tensors):
        groups.setdefault((tensor.device, tensor.dtype), []).append(index)
    found: dict[int, Array] = {}
    for (device, _), members in groups.items():
        chosen = [tensors[index] for index in members]
        near = device.type == "cpu"
        found |= zip(members, [one.numpy() for one in chosen] if near else in_one_copy(chosen))
    return [found[index] for index in range(len(tensors))]


def in_one_copy(tensors: list[Any]) -> list[Array]:
    """Tensors of one device and type as NumPy arrays."""
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors]).cpu().numpy()
    ends = np.cumsum([math.prod(tensor.shape) for tensor in tensors])
    pieces = np.split(flat, ends[:-1])
    return [piece.reshape(tuple(tensor.shape)) for piece, tensor in zip(pieces, tensors)]


def tensors_in(value: Any) -> Iterator[Any]:
    """The tensors in what a module was called with, in their order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from tensors_in(entry)
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from tensors_in(entry)


def data_in(value: Any) -> list[Any]:
    """The tensors that are data; what was computed with parameters is none."""
    return [
        tensor
        for tensor in tensors_in(value)
        if not tensor.requires_grad and not tensor.dtype.is_complex
    ]


def fingerprints(tensors: Iterable[Any]) -> list[dict[str, Any]]:
    """Fingerprints of data."""
    return [fingerprint(held(tensor, whole=True).values.numpy()) for tensor in tensors]


def targets_of(losses: Any) -> list[Any]:
    """What PyTorch's own losses were compared with, as the graph above them has kept it."""
    graph = [loss.grad_fn for loss in tensors_in(losses) if loss.grad_fn is not None]
    found = []
    for node in graph:
        target = getattr(node, "_saved_target", None)
        if isinstance(target, torch.Tensor):
            found.append(target)
        elif len(graph) < NODES:
            graph += [above for above, _ in node.next_functions if above is not None]
    return found
