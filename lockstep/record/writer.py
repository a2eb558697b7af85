"""The files of a trace: one JSON for the run, and a safetensors file for each update.

An array is named `phase|name`, with the name that its framework has for the parameter. Phases:
`before` and `after` (the parameters), `gradient.0`, `gradient.1`, ... (of each micro-batch alone),
`accumulated` (all of the window's), `clipped` (what the optimizer got), `state-before.NAME`,
`state.NAME` (the optimizer's, under the library's own names), `average` (of the parameters, which
some keep beside them, before the update), `input.0`, `output.0` (a module's
in the window's micro-batch 0; `input.0.1` is its second), `data.0`, `targets.0` (what that
micro-batch is of, numbered). What a framework does not show is absent.

The facts of an update are JSON in the file's metadata; `sizes` names what is sketched, with the
norm of the whole of it, or null where nobody read that. A sketch is the array at a few indices of
each axis, which depend on the axis' length alone: the sketch of a transposed array is the
transposed sketch.
"""

from __future__ import annotations

import json
import math
import os
import warnings
import zlib
from collections.abc import Callable, Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

Array = np.ndarray[Any, Any]

FORMAT = 1
RUN = "trace.json"
# What a file of an update is called.
UPDATE = "update-{:08}.safetensors"
# The key of the facts, and that of the checksum over facts and arrays, in a file's metadata.
FACTS, CHECKSUM = "lockstep", "checksum"
# What a checksum is multiplied by before the next part is added.
ODD = 0x9E3779B97F4A7C15
# How many numbers a sketch has, at most.
SAMPLED = 256
# Data of more numbers than this are not kept whole beside the activations that they lead to, and
# leave a device in whole updates only.
LARGE = 1 << 20
# What is said of a model that has them.
STATISTICS = "Running statistics, as of a batch normalisation, are not recorded: they may differ."
# What clipping goes by, so that its norm is taken; all else would be read for nothing.
MEASURED = "accumulated|"
# What safetensors and NumPy have in common, beside the half precisions, which float32 holds.
STORED = ("float64", "float32", "int64", "int32", "uint8", "bool")


class RecordError(ValueError):
    """A run that cannot be recorded so; the message says what to write instead."""


class Writer:
    """Writes a trace into a new folder.

    full: of how many first updates whole tensors are kept; every, at: of which others, by their
    number, which counts from 1. Of the rest there are sketches. Where a file cannot be written, as
    on a full disk, it warns and writes no more (`ended`): that is no reason to end a training.

    Raises RecordError where the folder holds anything.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        framework: str,
        full: int = 3,
        every: int | None = None,
        at: Collection[int] = (),
    ) -> None:
        """Make the folder."""
        self.folder = Path(folder)
        self.framework = framework
        self.full, self.every, self.at = full, every, frozenset(at)
        self.written, self.ended = 0, False
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise RecordError(f"{self.folder}: there is something; name a new folder for the trace")
        self.folder.mkdir(parents=True, exist_ok=True)

    def whole(self, update: int) -> bool:
        """Whether whole tensors are kept of an update."""
        return (
            update <= self.full
            or update in self.at
            or (self.every is not None and update % self.every == 0)
        )

    def over(self, update: int) -> bool:
        """Whether an update and all that follow are sketched."""
        return self.every is None and update > max(self.full, *self.at, 0)

    def run(self, facts: Mapping[str, Any]) -> None:
        """Write what is known of the run: versions, parameters, settings."""
        known = {"written_by": "lockstep record", "format": FORMAT, "framework": self.framework}
        text = json.dumps(known | dict(facts), indent=1, default=plain)
        self.put(RUN, lambda file: file.write_text(text, encoding="utf-8"))

    def update(self, number: int, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
        """Write an update: whole arrays where they are kept, sketches of what is not one yet.

        Where the update is to be sketched, `facts["sizes"]` names what is a sketch already, and has
        the norm of the whole of it, or None.
        """
        if self.ended:
            return
        sizes, dtypes = dict(facts.get("sizes", {})), dict(facts.get("dtypes", {}))
        stored = {}
        for name, array in arrays.items():
            if not self.whole(number) and name not in sizes:
                sizes[name] = norm(array) if name.startswith(MEASURED) else None
                array = sketch(array)
            if array.dtype.name not in STORED:
                dtypes[name] = array.dtype.name
                array = array.astype(np.float32)
            stored[name] = np.asarray(array, order="C")  # the other makes an axis for a scalar
        known = dict(facts) | {"update": number, "sizes": sizes, "dtypes": dtypes}
        text = json.dumps(known, default=plain)
        metadata = {FACTS: text, CHECKSUM: checksum(text, stored)}
        self.put(UPDATE.format(number), lambda file: save_file(stored, file, metadata))
        self.written += not self.ended

    def put(self, name: str, write: Callable[[Path], object]) -> None:
        """Put a file in its place in one operation, so that nobody ever reads half of it."""
        if self.ended:
            return
        new = self.folder / f".{name}.{os.getpid()}"
        try:
            write(new)
            # Whoever may read the folder may read the file; safetensors' own is the user's alone.
            new.chmod(self.folder.stat().st_mode & 0o666)
            new.replace(self.folder / name)
        except (OSError, SafetensorError) as error:
            self.ended = True
            new.unlink(missing_ok=True)
            warnings.warn(f"recording ends before update {self.written + 1}: {error}", stacklevel=3)


def activation_key(kind: str, index: int, name: str) -> str:
    """The key of an array that is an "input" or "output" of a module, in micro-batch 0."""
    return f"{kind}.0{f'.{index}' if index else ''}|{name}"


@cache
def lattice(length: int, axes: int, most: int = SAMPLED) -> Array:
    """Which indices of an axis a sketch has: by its length and how many axes there are, alone."""
    count = min(length, max(1, int(most ** (1 / max(axes, 1)) + 1e-9)))
    # Odd multiples do not fall together with the blocks that models are made of.
    return np.unique(((np.arange(count) + 0.5) * length / count).astype(np.int64))


def sketch(array: Any, most: int = SAMPLED) -> Any:
    """An array at a few indices of each axis; of any framework that indexes as NumPy does."""
    for axis, length in enumerate(array.shape):
        array = array[(slice(None),) * axis + (lattice(length, len(array.shape), most),)]
    return array


def norm(array: Array) -> float:
    """The norm of an array, in float64."""
    flat = np.asarray(array, dtype=np.float64).ravel()
    return math.sqrt(float(flat @ flat))


def checksum(facts: str, arrays: Mapping[str, Array]) -> str:
    """A number that each flipped bit of the facts or arrays changes, made as fast as memory is."""
    total = zlib.crc32(facts.encode())
    for name in sorted(arrays):
        array = arrays[name]
        content = array.reshape(-1).view(np.uint8)
        words = content[: content.size // 8 * 8].view(np.uint64)
        rest = f"{name} {array.dtype} {array.shape}".encode() + content[words.size * 8 :].tobytes()
        # An odd factor keeps each bit of the sum.
        total = (total * ODD + zlib.crc32(rest) + int(words.sum(dtype=np.uint64))) % 2**64
    return f"{total:016x}"


def fingerprint(array: Array) -> dict[str, Any]:
    """What tells data apart, whatever framework and integer type hold it: no value is kept."""
    values = np.ascontiguousarray(array, dtype=np.float64)
    return {
        "shape": list(values.shape),
        "sum": float(values.sum()),
        "crc": f"{zlib.crc32(values.reshape(-1).view(np.uint8).tobytes()):08x}",
    }


def plain(value: Any) -> Any:
    """A number of NumPy's or a framework's as JSON has it; of anything else, its text."""
    if isinstance(value, np.ndarray) and value.size != 1:
        return value.tolist()
    if hasattr(value, "item"):
        return value.item()
    return str(value)
