"""A training run: data and settings, in NumPy and plain values only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lockstep.problem.settings import (
    LossScale,
    Optimizer,
    ProblemError,
    Schedule,
    is_number,
    require,
    require_count,
    shown,
)

Array = NDArray[Any]
MicroBatch = tuple[Array, Array]

DTYPES = ("float64", "float32")
COMPUTE_DTYPES = ("bfloat16", "float16")
PARTIAL_WINDOWS = ("apply", "drop", "carry")
LARGEST_RUN = 10**7  # its windows are listed
NON_FINITE = ("apply", "skip", "raise")


@dataclass(frozen=True, eq=False)
class Problem:
    """One training run: initial parameters, one epoch's micro-batches, and the settings.

    W: (features, outputs), b: (outputs,), cast to `dtype`.
    micro_batches: (x, y) pairs, x (examples, features) and y (examples, outputs); sizes may differ.
    epochs: how often to go through the micro-batches, in order.
    accumulation_steps: K, the micro-batches of one update; windows never cross an epoch.
    learning_rates: None, or the learning rate of each update.
    max_norm: None, or the global norm to clip the accumulated gradient to.
    dtype: "float64" or "float32", of the parameters, the accumulator and the optimizer's state.
    schedule: None, or how the learning rate warms up and decays.
    decay_bias: whether weight decay acts on b as it does on W.
    example_weights: None, or (examples,) weights of each micro-batch, the token counts of language
        models; a window's quantity is then the weighted mean. A weight of 0 is padding.
    partial_windows: "apply" an epoch's partial window, divided by its own examples; "drop" it; or
        "carry" it into the next epoch, whose first micro-batches complete it. What the last epoch
        leaves incomplete is then dropped.
    non_finite: what becomes of a window whose gradient is not finite. "apply" it, unlooked at;
        "skip" it: no update, no state changes, and nothing is left behind in the accumulator; or
        "raise" FloatingPointError.
    compute_dtype: None, or "bfloat16" or "float16" for the forward and backward pass.
    loss_scale: None, or the dynamic scale of the loss.

    Raises ProblemError where a shape, a number or a setting makes no sense.
    """

    W: Array
    b: Array
    micro_batches: Sequence[MicroBatch]
    epochs: int = 1
    accumulation_steps: int = 1
    optimizer: Optimizer = field(default_factory=Optimizer)
    learning_rates: Sequence[float] | None = None
    max_norm: float | None = None
    dtype: str = "float64"
    schedule: Schedule | None = None
    decay_bias: bool = True
    example_weights: Sequence[Array] | None = None
    partial_windows: str = "apply"
    non_finite: str = "apply"
    compute_dtype: str | None = None
    loss_scale: LossScale | None = None

    def __post_init__(self) -> None:
        for name, choices in (
            ("dtype", DTYPES),
            ("partial_windows", PARTIAL_WINDOWS),
            ("non_finite", NON_FINITE),
            ("compute_dtype", (None, *COMPUTE_DTYPES)),
            ("decay_bias", (True, False)),
        ):
            value = getattr(self, name)
            require(
                isinstance(value, str | bool | None) and value in choices,
                f"{name}: {shown(value)} must be one of {', '.join(map(str, choices))}",
            )
        for name, kind in NESTED.items():
            value = getattr(self, name)
            optional = name != "optimizer" and value is None
            require(
                optional or isinstance(value, kind),
                f"{name}: {shown(value)} must be a lockstep.problem.{kind.__name__}",
            )
        for name in ("epochs", "accumulation_steps"):
            require_count(name, getattr(self, name))
            object.__setattr__(self, name, int(getattr(self, name)))
        self._check_arrays()
        require(
            self.updates > 0,
            f"partial_windows: {self.partial_windows!r} leaves no window of K ="
            f" {self.accumulation_steps} micro-batches in {self.epochs} epochs of"
            f" {len(self.micro_batches)}",
        )
        require(
            self.loss_scale is None or self.non_finite != "apply",
            "loss_scale: needs non_finite 'skip' or 'raise', since scaled gradients overflow",
        )
        self._check_example_weights()
        self._check_learning_rates()
        require(
            self.max_norm is None or (is_number(self.max_norm) and self.max_norm > 0),
            f"max_norm: {shown(self.max_norm)} must be None or a finite number above 0",
        )
        if self.max_norm is not None:
            object.__setattr__(self, "max_norm", float(self.max_norm))

    def _check_arrays(self) -> None:
        require(
            isinstance(self.micro_batches, Sequence),
            "micro_batches: must be a list of pairs (x, y)",
        )
        require(
            self.epochs * len(self.micro_batches) <= LARGEST_RUN,
            f"epochs: {shown(self.epochs)} of {len(self.micro_batches)} micro-batches are more than"
            f" {LARGEST_RUN} micro-steps",
        )
        require(len(self.micro_batches) > 0, "micro_batches: an epoch needs at least one, got none")
        W, b = self._array("W", self.W), self._array("b", self.b)
        require(
            W.ndim == 2 and b.ndim == 1 and W.shape[1] == b.shape[0] and W.size > 0,
            f"W, b: shapes {W.shape} and {b.shape} must be (features, outputs) and (outputs,)",
        )
        micro_batches = tuple(
            self._micro_batch(index, pair, W.shape) for index, pair in enumerate(self.micro_batches)
        )
        for name, value in (("W", W), ("b", b), ("micro_batches", micro_batches)):
            object.__setattr__(self, name, value)

    def _array(self, where: str, value: Any) -> Array:
        """A read-only copy in the problem's dtype; every number must be finite."""
        try:
            # In C order, whatever it came in: files hold memory as it lies.
            kind = np.asarray(value).dtype.kind
            require(kind not in "bcMm", f"{where}: must hold real numbers")
            with np.errstate(over="ignore"):  # what the dtype does not hold is refused below
                array: Array = np.array(value, dtype=self.dtype, order="C")
        except ProblemError:
            raise
        except (TypeError, ValueError, OverflowError) as error:
            raise ProblemError(f"{where}: not an array of numbers ({error})") from None
        finite = np.isfinite(array)
        if not finite.all():
            index = tuple(int(i) for i in np.argwhere(~finite)[0])
            raise ProblemError(f"{where}{list(index)}: {array[index]} must be a finite number")
        array.flags.writeable = False
        return array

    def _micro_batch(self, index: int, pair: Any, shape: tuple[int, ...]) -> MicroBatch:
        where = f"micro_batches[{index}]"
        require(isinstance(pair, Sequence) and len(pair) == 2, f"{where}: must be a pair (x, y)")
        x, y = self._array(f"{where}.x", pair[0]), self._array(f"{where}.y", pair[1])
        features, outputs = shape
        require(
            x.ndim == y.ndim == 2
            and 0 < len(x) == len(y)
            and (x.shape[1], y.shape[1]) == (features, outputs),
            f"{where}: shapes {x.shape} and {y.shape} must be"
            f" (examples, {features}) and (examples, {outputs}), with at least one example",
        )
        return x, y

    def _check_example_weights(self) -> None:
        if self.example_weights is None:
            return
        sizes = [len(x) for x, _ in self.micro_batches]
        require(
            isinstance(self.example_weights, Sequence)
            and bool(np.isfinite(sum(np.sum(each) for each in self.example_weights))),
            "example_weights: must be a list of arrays, one a micro-batch, with a finite sum",
        )
        require(
            len(self.example_weights) == len(sizes),
            f"example_weights: {len(self.example_weights)} for {len(sizes)} micro-batches",
        )
        weights = tuple(
            self._array(f"example_weights[{i}]", each)
            for i, each in enumerate(self.example_weights)
        )
        object.__setattr__(self, "example_weights", weights)
        for i, (each, size) in enumerate(zip(weights, sizes, strict=True)):
            require(
                each.shape == (size,) and bool((each >= 0).all()),
                f"example_weights[{i}]: must be {size} numbers of at least 0, one an example",
            )
        for number, window in enumerate(self.windows):
            require(
                any(weights[i % len(sizes)].any() for i in window),
                f"example_weights: window {number} has padding only",
            )

    def _check_learning_rates(self) -> None:
        require(
            self.schedule is None or self.learning_rates is None,
            "schedule: give a schedule or learning_rates, not both",
        )
        if self.learning_rates is None:
            return
        require(
            isinstance(self.learning_rates, Sequence | np.ndarray),
            "learning_rates: must be a sequence of finite numbers",
        )
        require(
            len(self.learning_rates) >= self.updates,
            f"learning_rates: {len(self.learning_rates)} for {self.updates} updates",
        )
        for update, rate in enumerate(self.learning_rates):
            require(
                is_number(rate) and rate >= 0,
                f"learning_rates[{update}]: {shown(rate)} must be a finite number of at least 0",
            )
        object.__setattr__(self, "learning_rates", tuple(map(float, self.learning_rates)))

    @cached_property
    def windows(self) -> list[range]:
        """The run's windows, in order, each as the indices of its micro-batches.

        Modulo the number of micro-batches, that is: a carried window goes on into the next epoch.
        """
        k, count = self.accumulation_steps, len(self.micro_batches)
        if self.partial_windows == "carry":
            starts = range(0, self.epochs * count - k + 1, k)
            return [range(start, start + k) for start in starts]
        whole = k if self.partial_windows == "drop" else 1
        epoch = [range(start, min(start + k, count)) for start in range(0, count - whole + 1, k)]
        return epoch * self.epochs

    @property
    def updates(self) -> int:
        """The number of windows in all epochs, each of them an update unless it is skipped."""
        return len(self.windows)

    def uses_only(self, *settings: str) -> bool:
        """Whether the update is the plain loop's: mean gradient, optimizer, one learning rate.

        That is, whether no setting of a recipe is in use but those that are named.
        """
        return all(
            getattr(self, name) == value for name, value in PLAIN.items() if name not in settings
        )

    @property
    def examples(self) -> MicroBatch:
        """One epoch's examples as two arrays, (examples, features) and (examples, outputs)."""
        xs, ys = zip(*self.micro_batches, strict=True)
        return np.concatenate(xs), np.concatenate(ys)

    def save(self, path: Path | str) -> None:
        """Write the problem to a safetensors file, which `Problem.load` and the CLI read."""
        from safetensors.numpy import save_file

        arrays = {"W": self.W, "b": self.b}
        for index, (x, y) in enumerate(self.micro_batches):
            arrays |= {f"x.{index}": x, f"y.{index}": y}
        for index, weights in enumerate(self.example_weights or ()):
            arrays[f"weights.{index}"] = weights
        settings = {name: getattr(self, name) for name in SETTINGS}
        for name in NESTED:
            value = getattr(self, name)
            settings[name] = value and asdict(value)
        written = json.dumps(settings)
        metadata = {"problem": written, "sha256": _digest(arrays, written)}
        save_file(arrays, path, metadata=metadata)

    @classmethod
    def load(cls, path: Path | str) -> Problem:
        """Read what `save` wrote. Raises ProblemError for anything else."""
        from safetensors import SafetensorError, safe_open

        require(
            Path(path).is_file() or not Path(path).exists(),
            f"{path}: must be a file, not a folder, a pipe or a device",
        )
        try:
            with safe_open(path, framework="np") as file:
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                metadata = file.metadata() or {}
            settings = json.loads(metadata["problem"], object_pairs_hook=_without_repetition)
            for name, make in NESTED.items():
                if settings.get(name) is not None:
                    settings[name] = make(**settings[name])
            written = metadata.get("sha256")
            require(
                written is None or written == _digest(arrays, metadata["problem"]),
                "the data are not those that were written, get the file again",
            )
            return cls(**_grouped(arrays), **settings)
        except ProblemError as error:
            raise ProblemError(f"{path}: {error}") from None
        except (OSError, SafetensorError) as error:
            raise ProblemError(f"{path}: not a readable safetensors file ({error})") from None
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise ProblemError(f"{path}: not a problem written by Problem.save ({error})") from None


def _digest(arrays: Mapping[str, Array], settings: str) -> str:
    """SHA-256 of the settings and of every array's name, dtype, shape and numbers."""
    found = hashlib.sha256(settings.encode())
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype} {array.shape} ".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _grouped(arrays: Mapping[str, Array]) -> dict[str, Any]:
    """A file's arrays as the fields of a problem; there must be no more and no less."""
    count = sum(name.startswith("x.") for name in arrays)
    groups = [[f"{group}.{i}" for i in range(count)] for group in ("x", "y", "weights")]
    xs, ys, weights = groups
    weighted = any(name.startswith("weights.") for name in arrays)
    needed = {"W", "b", *xs, *ys, *(weights if weighted else ())}
    for what, names in (("no", needed - set(arrays)), ("unknown", set(arrays) - needed)):
        require(not names, f"arrays: {what} {', '.join(map(repr, sorted(names)))}")
    pairs = [(arrays[x], arrays[y]) for x, y in zip(xs, ys, strict=True)]
    fields: dict[str, Any] = {"W": arrays["W"], "b": arrays["b"], "micro_batches": pairs}
    return fields | ({"example_weights": [arrays[name] for name in weights]} if weighted else {})


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, whose names must be different ones."""
    found = dict(pairs)
    require(len(found) == len(pairs), f"metadata: {[name for name, _ in pairs]} repeats a name")
    return found


NESTED: dict[str, Any] = {"optimizer": Optimizer, "schedule": Schedule, "loss_scale": LossScale}
# What makes a recipe of the plain accumulation loop, and its value where it does not.
PLAIN: dict[str, Any] = {
    "learning_rates": None,
    "max_norm": None,
    "schedule": None,
    "decay_bias": True,
    "example_weights": None,
    "partial_windows": "apply",
    "non_finite": "apply",
    "compute_dtype": None,
    "loss_scale": None,
}
SETTINGS = (
    *("epochs", "accumulation_steps", "dtype"),
    *(name for name in PLAIN if name not in {*NESTED, "example_weights"}),
)
