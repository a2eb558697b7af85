"""Load a port and run it on a problem, wherever its code is from: what it yields, and how.

A port is a function `train(problem)` that yields, after every update, W and b as NumPy arrays: a
pair, a list [W, b, more], or a dict with "W", "b" and any of "gradient", "learning_rate", "loss"
and "state". "more" and "state" are dicts themselves; what is in them is a number, or a pair for W
and for b.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import linecache
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.problem import DTYPES, Array, Problem

FUNCTION = "train"
# Where a port's file is, for the processes that it spawns.
LOADED = "LOCKSTEP_PORT"
INSTEAD = "write a function train(problem) that uses it and yields W and b after every update"
# What a port can offer beside W, b and the optimizer's state.
OFFERED = ("gradient", "learning_rate", "loss")
FRAMEWORK = {
    "torch": "pytorch", "tensorflow": "tensorflow", "keras": "tensorflow", "jax": "jax",
    "optax": "jax",
}  # fmt: skip
KERAS = {"torch": "keras-pytorch", "jax": "keras-jax"}
IMPORTS = re.compile(rf"^\s*(?:import|from)\s+({'|'.join(FRAMEWORK)})\b", re.MULTILINE)


class PortError(Exception):
    """A port cannot be loaded, or yields what is no trajectory; the message says what and where."""


class LoadError(PortError):
    """There is no such port."""


class WrongDtype(PortError):  # noqa: N818 - it is an error
    """A port yields arrays of another dtype than was asked for."""


@dataclass
class Yielded:
    """What a port yielded.

    W, b: after every update; more: name to what it is after every update, missing where it was
    not yielded; read: the fields of the problem that it has read; notes: what to tell its author.
    """

    W: list[Array] = field(default_factory=list)
    b: list[Array] = field(default_factory=list)
    more: list[dict[str, Any]] = field(default_factory=list)
    read: set[str] = field(default_factory=set)
    notes: set[str] = field(default_factory=set)

    def arrays(self) -> dict[str, Array]:
        """Everything as arrays that a file can hold: "W", "b", "state.NAME.W", "state.NAME.b".

        A number is given once for every number of W and b. State that is missing is zero, since a
        library may have none before its first update; anything else is NaN.
        """
        if not self.W:
            return {}
        # In C order, whatever it came in: files hold memory as it lies.
        found = {
            name: np.ascontiguousarray(np.stack(arrays))
            for name, arrays in (("W", self.W), ("b", self.b))
        }
        for name in dict.fromkeys(name for more in self.more for name in more):
            for i, parameter in enumerate("Wb"):
                like = found[parameter]
                missing = np.nan if name in OFFERED else 0.0
                each = [pair(more.get(name, missing))[i] for more in self.more]
                stacked = np.stack([np.broadcast_to(part, like.shape[1:]) for part in each])
                found[f"state.{name}.{parameter}"] = stacked.astype(like.dtype)
        return found


def stacked(arrays: Mapping[str, Array]) -> tuple[list[Array], dict[str, list[Array]]]:
    """The trajectory, W above b after every update, and what else there is by name."""
    if not arrays:
        return [], {}
    prefixes = dict.fromkeys(name[:-1] for name in arrays)
    found = {
        prefix.removeprefix("state.").removesuffix("."): list(
            np.concatenate([arrays[f"{prefix}W"], arrays[f"{prefix}b"][:, None]], 1)
        )
        for prefix in prefixes
    }
    return found.pop(""), found


def pair(value: Any) -> Any:
    """W's and b's part of a state; a number is the same for both."""
    return value if isinstance(value, list | tuple) else (value, value)


def load(port: str) -> Callable[[Problem], Any]:
    """The function of a port: "file.py", "file.py:function", "module" or "module:function".

    Raises LoadError, and whatever the module raises.
    """
    name, function = divided(port)
    if "." in function:
        raise LoadError(f"{name}: {function} is no function of the module: {INSTEAD}")
    # A port's module may parse arguments: it is a script without any.
    sys.argv = [name]
    module = load_file(Path(name)) if name.endswith(".py") else load_module(name)
    found = getattr(module, function or FUNCTION, None)
    if inspect.isclass(found):
        raise LoadError(f"{name}: {function} is a class: {INSTEAD}")
    if not callable(found):
        instead = "" if function else f", name yours: {name}:FUNCTION"
        raise LoadError(f"{name}: has no function {function or FUNCTION}(problem){instead}")
    return found


def divided(port: str) -> tuple[str, str]:
    """The file or module of a port, and its function, "" where none is named."""
    name, _, function = (port, "", "") if Path(port).is_file() else port.rpartition(":")
    return (name, function) if name else (function, "")


def load_file(file: Path) -> Any:
    """A module from a file, whose neighbours it can import."""
    if not file.is_file():
        raise LoadError(f"{file}: no such file")
    file = file.absolute()
    # Under a name of its own: the file may have that of a package, jax.py.
    name = f"port_{file.stem}"
    if getattr(sys.modules.get(name), "__file__", "") == str(file):
        return sys.modules[name]
    sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    os.environ[LOADED] = str(file)
    spec.loader.exec_module(module)
    return module


def load_again() -> None:
    """Load the file of a port in a process that it has spawned, which looks for its functions."""
    if file := os.environ.get(LOADED):
        load_file(Path(file))


def load_module(name: str) -> Any:
    """A module by its name."""
    shown = name or repr(name)
    nowhere = LoadError(f"{shown}: neither a .py file nor a module that can be imported")
    if not all(name.split(".")):
        raise nowhere
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # something that the module imports
        raise nowhere from None


def framework_of(train: Callable[[Problem], Any]) -> str:
    """The first framework that a port's module imports, "" where none does.

    Keras is called by what it runs on: "keras-pytorch".
    """
    try:
        source = inspect.getsource(sys.modules[train.__module__])
    except (OSError, TypeError, KeyError):
        return ""
    found = IMPORTS.search(source)
    if found and found[1] == "keras":
        backend = sys.modules["keras"].backend.backend() if "keras" in sys.modules else "tensorflow"
        return KERAS.get(backend, "tensorflow")
    return FRAMEWORK[found[1]] if found else ""


def watched(problem: Problem) -> tuple[Problem, set[str]]:
    """The same problem, and the set into which it writes what somebody reads.

    "max_norm" is a field of the problem's, "optimizer.eps" one of its optimizer's, and "__dict__"
    all of them.
    """
    read: set[str] = set()
    copy = watching(problem, read, "")
    object.__getattribute__(copy, "__dict__")["optimizer"] = watching(
        problem.optimizer, read, "optimizer."
    )
    return copy, read


def watching(settings: Any, read: set[str], prefix: str) -> Any:
    """A copy of settings that writes down which of them are read."""

    class Watched(type(settings)):  # type: ignore[misc]  # a base of its own, each time
        def __getattribute__(self, name: str) -> Any:
            read.add(name if name == "__dict__" else prefix + name)
            return super().__getattribute__(name)

        def __reduce__(self) -> Any:
            # For a port that hands it to a process of its own: there, nobody watches.
            read.add("__dict__")
            return restored, (type(settings), vars(settings))

        def __eq__(self, other: Any) -> bool:
            return bool(settings == other)

        def __hash__(self) -> int:
            return hash(settings)

    copy = object.__new__(Watched)
    object.__getattribute__(copy, "__dict__").update(vars(settings))
    return copy


def restored(kind: type[Any], fields: dict[str, Any]) -> Any:
    """Settings of these fields, which were checked when they were first made."""
    settings = object.__new__(kind)
    settings.__dict__.update(fields)
    return settings


def follow(train: Callable[[Problem], Any], problem: Problem, updates: int | None) -> Yielded:
    """Run a port for at most so many updates, and copy what it yields.

    Raises PortError for what is no trajectory, and whatever the port raises.
    """
    handed, read = watched(problem)
    found = Yielded(read=read)
    try:
        trajectory = iter(train(handed))
    except TypeError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
            raise
        raise PortError(f"train(problem) must yield W and b after every update: {error}") from None
    kept: list[tuple[Any, Array]] = []
    for number, item in enumerate(islice(trajectory, updates), 1):
        if not all(np.array_equal(raw, copy, equal_nan=True) for raw, copy in kept):
            found.notes.add(
                "an array that was yielded changes later: yield a copy, or list(train(problem))"
                " holds the last update only"
            )
        W, b, more = parts(item, number)
        kept = []
        for name, raw, like in (("W", W, problem.W), ("b", b, problem.b)):
            copy = as_array(raw, f"update {number}: {name}")
            if copy.shape == like.shape[::-1] != like.shape:
                found.notes.add(f"{name} came transposed, {copy.shape}, as a layer may keep it")
                copy = copy.T
            if copy.shape != like.shape:
                raise PortError(f"update {number}: {name} has shape {copy.shape}, not {like.shape}")
            if copy.dtype != like.dtype:
                known = copy.dtype.name in DTYPES
                kind = WrongDtype if known else PortError
                raise kind(f"update {number}: {name} is {copy.dtype}, not {like.dtype}")
            kept.append((raw, copy))
        found.W.append(kept[0][1])
        found.b.append(kept[1][1])
        shapes = problem.W, problem.b
        found.more.append(
            {name: copied(each, shapes, f"update {number}: {name}") for name, each in more.items()}
        )
    return found


def copied(value: Any, like: Sequence[Array], what: str) -> list[Array]:
    """W's and b's part of what a port offers, copied now: a .grad goes on adding in place."""
    try:
        pairs = zip(pair(value), like, strict=True)
        return [
            np.broadcast_to(numbers(part), array.shape).astype(np.float64) for part, array in pairs
        ]
    except (TypeError, ValueError, RuntimeError) as error:
        raise PortError(
            f"{what} must be a number, or a pair of the shapes of W and b: {first_line(error)}"
        ) from None


def parts(item: Any, number: int) -> tuple[Any, Any, dict[str, Any]]:
    """W, b and what else a port yielded, by name."""
    if isinstance(item, dict):
        more = dict(item)
        if not {"W", "b"} <= set(more):
            raise PortError(f"update {number}: the dict must have W and b, not {', '.join(more)}")
        W, b, state = more.pop("W"), more.pop("b"), more.pop("state", {})
        if not isinstance(state, dict):
            raise PortError(f"update {number}: state is {type(state).__name__}, not a dict")
        return W, b, more | state
    if not isinstance(item, list | tuple) or len(item) not in (2, 3):
        what = f"{len(item)} things" if isinstance(item, list | tuple) else type(item).__name__
        raise PortError(f"update {number}: yielded {what} instead of (W, b), or a dict with both")
    W, b, *rest = item
    if rest and not isinstance(rest[0], dict):
        raise PortError(f"update {number}: the third of three is {type(rest[0]).__name__}, no dict")
    return W, b, rest[0] if rest else {}


def as_array(raw: Any, where: str) -> Array:
    """A copy as NumPy has it."""
    try:
        copy = np.array(numbers(raw))
        copy = copy.astype(copy.dtype.newbyteorder("="))
    except Exception as error:
        raise PortError(f"{where} is no NumPy array: {first_line(error)}") from None
    if copy.dtype.kind != "f" and copy.dtype.name != "bfloat16":
        raise PortError(f"{where} is {type(raw).__name__} of {copy.dtype}, not of a float dtype")
    return copy


def numbers(raw: Any) -> Any:
    """A PyTorch tensor without its graph, on the host; anything else as it is."""
    return raw.detach().cpu() if hasattr(raw, "detach") else raw


def first_line(error: BaseException) -> str:
    """What an exception says, in one line."""
    line, *_ = str(error).strip().splitlines() or ["(no message)"]
    return printable(line)


def printable(line: str) -> str:
    """A line that any terminal and file can hold: control characters and half ones escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def where(error: BaseException, port: str) -> str:
    """The last line of the port that an exception went through: "file.py:12: text", or ""."""
    name, _ = divided(port)
    if name.endswith(".py"):
        home = Path(name).absolute().parent
    else:
        module = sys.modules.get(name)
        home = Path(getattr(module, "__file__", None) or "/nowhere/").absolute().parent
    for frame in reversed(list(frames(error))):
        file = Path(frame.filename).absolute()
        if file.is_relative_to(home) and "site-packages" not in file.parts:
            line = printable(linecache.getline(frame.filename, frame.lineno or 0).strip())
            return f"{file.name}:{frame.lineno}: {line}"
    return ""


def frames(error: BaseException) -> Iterator[traceback.FrameSummary]:
    """The frames of an exception, the innermost last."""
    yield from traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError) and error.filename:
        yield traceback.FrameSummary(error.filename, error.lineno, "")
