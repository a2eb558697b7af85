"""Arrays on their way to the host: whole, or as sketches, not a bit cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lockstep.record import optax_names, writer
from lockstep.record.writer import Array

Arrays = dict[str, Any]


def traced(tree: Any) -> bool:
    """Whether any of it is traced, so that there are no values yet."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree_util.tree_leaves(tree))


def is_scalar(leaf: Any) -> bool:
    """Whether a leaf may be a loss."""
    return optax_names.is_array(leaf) and leaf.ndim == 0


def host(array: Any) -> Array:
    """An array on the host, in a type that files have, and the host's own."""
    found = np.array(array)
    return (
        found.astype(np.int64) if found.dtype.kind in "ui" and found.dtype.itemsize < 8 else found
    )


def flat_sketches(arrays: Arrays) -> dict[str, Any]:
    """Sketches of arrays, in one array for each type of number."""
    parts: dict[str, list[Any]] = {}
    # JAX hands a dict on in the order of its keys, whatever order it had.
    for _, array in sorted(arrays.items()):
        flat = writer.sketch(array).reshape(-1)
        parts.setdefault(str(flat.dtype), []).append(flat)
    return {dtype: jnp.concatenate(several) for dtype, several in parts.items()}


def pack(arrays: Arrays) -> dict[str, Any]:
    """Sketches, and squares of the norms that are wanted, in one array for each type of number."""
    found = flat_sketches(arrays)
    measured = sorted((n, a) for n, a in arrays.items() if n.startswith(writer.MEASURED))
    return found | packed_squares([square(array) for _, array in measured])


def square(array: Any) -> Any:
    """The square of an array's norm, of 32 bits at least."""
    wide = array.astype(jnp.promote_types(array.dtype, jnp.float32))
    return dotted(wide, wide)


def packed_squares(squares: list[Any]) -> dict[str, Any]:
    """Squares of norms as `pack` has them: those of other types than the widest are exact in it."""
    if not squares:
        return {}
    widest = jnp.result_type(*squares)
    return {"squares": jnp.stack([jnp.asarray(each, widest) for each in squares])}


pack_now = jax.jit(pack)


def encoded(arrays: Arrays) -> Arrays:
    """Arrays as a callback gets them unharmed.

    It runs on a thread of its own, where `jax.enable_x64` is not on, and numbers of 64 bits are cut
    to 32 on their way. So they go as pairs.
    """
    return {
        name: jax.lax.bitcast_convert_type(array, jnp.uint32) if is_wide(array.dtype) else array
        for name, array in arrays.items()
    }


def decoded(arrays: Arrays, forms: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, Array]:
    """What `encoded` was made of, on the host."""
    found = {}
    for name, array in arrays.items():
        dtype, shape = forms[name]
        own = np.array(array)
        wide = own.dtype == np.uint32 and dtype != "uint32"
        found[name] = own.view(dtype).reshape(shape) if wide else own
    return found


def is_wide(dtype: Any) -> bool:
    """Whether a number has 64 bits."""
    return str(dtype) in ("float64", "int64", "uint64")


def dotted(first: Any, second: Any) -> Any:
    """The sum of products over all axes.

    A product of matrices is many times faster than a sum on a CPU, and adds in blocks.
    """
    taken = range(first.ndim), range(second.ndim)
    highest = jax.lax.Precision.HIGHEST
    return jax.lax.dot_general(first, second, (taken, ((), ())), precision=highest)


def forms_of(arrays: Arrays) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The type and shape of each array, which is all of it that `unpack` needs."""
    return {name: (str(array.dtype), tuple(array.shape)) for name, array in arrays.items()}


def unpack(
    packed: Mapping[str, Any], forms: Mapping[str, tuple[str, tuple[int, ...]]]
) -> tuple[Arrays, dict[str, Any]]:
    """Sketches and sizes by name, from what `pack` or `flat_sketches` made of arrays so formed."""
    flat = {name: np.asarray(array) for name, array in packed.items()}
    at = dict.fromkeys(flat, 0)
    arrays: Arrays = {}
    sizes: dict[str, Any] = {}
    squares = iter(flat.get("squares", ()))
    for name, (dtype, shape) in sorted(forms.items()):
        axes = len(shape)
        small = tuple(len(writer.lattice(length, axes)) for length in shape)
        length = int(np.prod(small, dtype=int))
        arrays[name] = flat[dtype][at[dtype] : at[dtype] + length].reshape(small)
        at[dtype] += length
        measured = name.startswith(writer.MEASURED)
        sizes[name] = float(np.sqrt(np.float64(next(squares)))) if measured else None
    return arrays, sizes


def sketches(arrays: Arrays) -> Arrays:
    """Enough of each array to know it again."""
    return {name: np.array(writer.sketch(array)) for name, array in arrays.items()}


def equal(arrays: Arrays, last: Arrays) -> bool:
    """Whether arrays are those of which there are sketches (or whose sketches these are)."""
    if arrays.keys() != last.keys() or not arrays:
        return False
    return all(np.array_equal(writer.sketch(a), last[n]) for n, a in arrays.items())
