"""What `lockstep run` checks: which loop, on which problem, against which oracle."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lockstep.oracle import loop, rounding
from lockstep.oracle.compare import Comparison, compare_bits, compare_bounds, finite
from lockstep.problem import Array, Problem, hadamard, iris_adamw, iris_recipe, iris_sgd
from lockstep.problem.settings import ProblemError, require
from lockstep.workers.pool import Refused, Worker

Evidence = Literal["exact", "bitwise", "bound"]
# Which loop runs: the readable one; the same, and the bitwise one op by op; or the fast one.
Form = Literal["readable", "eager", "fast"]

# The bitwise loop in the form that runs fastest. All forms hold the same bits; PyTorch compiles
# with a C++ compiler, which takes longer than it saves here and is not on every machine.
FASTEST = {
    "pytorch": "pytorch_impl.bitwise",
    "tensorflow": "tensorflow_impl.compiled",
    "jax": "jax_impl.compiled",
}

# For so many updates no operation rounds on the exact problem, with any K: a test proves it.
EXACT_UPDATES = {"float64": 48, "float32": 20}
# With some K it is exact for a few more; what is asked for beyond is not even trained.
MORE = 16
# What PyTorch's fast form tells of itself: the others have one form.
TOLD = ("compiled", "fused")
# The oracle takes a twentieth of a second for an update, and four minutes for so many.
LONGEST = 5_000


@dataclass(frozen=True)
class Check:
    """One loop on one problem, compared with an oracle after every update.

    evidence: "exact", the idiomatic loop against fractions, in bits; "bitwise", the bitwise loop
    against NumPy, in bits; "bound", the idiomatic loop, or the recipe where the problem has one,
    against decimals, within rounding bounds.
    """

    name: str
    title: str
    problem: Problem
    evidence: Evidence
    asked: int

    @cached_property
    def expected(self) -> list[Array]:
        """The oracle's trajectory, one array a compared update."""
        precision: dict[Evidence, loop.Precision | None] = {
            "exact": "fraction",
            "bitwise": None,
            "bound": "decimal",
        }
        try:
            trajectory = loop.trajectory(self.problem, precision[self.evidence], updates=self.asked)
        except ArithmeticError as error:
            raise ProblemError(
                f"{self.name}: the update is not defined, {error or type(error).__name__}:"
                " a number over 0, if eps is 0"
            ) from None
        for update, theta in enumerate(trajectory, 1):
            require(
                bool(finite(theta).all()),
                f"{self.name}: the run diverges: update {update} is out of {self.problem.dtype}'s"
                " range, choose a smaller learning rate, or scale the data",
            )
        if self.evidence == "exact" and self.asked > EXACT_UPDATES[self.problem.dtype]:
            return trajectory[: rounding.exact_updates(self.problem, trajectory)]
        return trajectory

    @property
    def updates(self) -> int:
        """How many updates are compared: an exact problem is exact for so many only."""
        return len(self.expected)

    @cached_property
    def bounds(self) -> list[Array] | None:
        """The rounding bounds, where the evidence is one."""
        if self.evidence != "bound":
            return None
        with np.errstate(over="ignore", invalid="ignore"):
            return list(rounding.rounding_bounds(self.problem, self.expected))

    @cached_property
    def losses(self) -> list[float]:
        """The objective over an epoch after every update, by the oracle."""
        with np.errstate(over="ignore", invalid="ignore"):
            return [loop.loss(theta, self.problem) for theta in self.expected]

    def prepare(self) -> None:
        """Do the oracle's work now, while others start, instead of when it is needed."""
        _ = self.losses, self.bounds

    def fast(self) -> Check:
        """The same for the fast form, which has no bits to keep but on an exact problem."""
        title = self.title.replace("the bitwise form", "the fast form")
        if self.evidence != "bitwise":
            return replace(self, title=f"{title}, in the fast form")
        return replace(self, title=title, evidence="bound")

    def port(self, framework: str, form: Form = "readable") -> str:
        """The module whose `train` this check runs."""
        if form == "fast":
            return f"{framework}_impl.fast"
        if self.evidence != "bitwise":
            file = "training" if self.problem.uses_only() else "recipe"
            return f"{framework}_impl.{file}"
        return f"{framework}_impl.bitwise" if form == "eager" else FASTEST[framework]

    def compare(self, actual: Sequence[Array]) -> Comparison:
        """Hold a framework's trajectory, one update longer if there is one, against the oracle's.

        Raises ValueError for another number of updates.
        """
        due = min(self.asked + 1, self.problem.updates)
        if len(actual) != due:
            raise ValueError(f"{len(actual)} updates instead of {due}")
        actual = actual[: self.updates]
        if self.bounds is None:
            return compare_bits(self.expected, actual)
        return compare_bounds(self.expected, actual, self.bounds)


# name: title, problem, evidence, and the updates compared by default in each dtype
CATALOGUE: dict[str, tuple[str, Callable[..., Problem], Evidence, dict[str, int]]] = {
    "exact": (
        "the accumulation loop on an exact problem",
        hadamard,
        "exact",
        EXACT_UPDATES,
    ),
    "iris-sgd": (
        "the accumulation loop on Iris, ragged and partial windows",
        iris_sgd,
        "bound",
        {"float64": 30},
    ),
    "iris-recipe": (
        "the fine-tuning recipe on Iris: AdamW, decay groups, warm-up, cosine, clipping",
        iris_recipe,
        "bound",
        {"float64": 30},
    ),
    "iris-adamw": (
        "AdamW on Iris in the bitwise form",
        iris_adamw,
        "bitwise",
        {"float64": 100, "float32": 100},
    ),
}

# What `lockstep run` runs unless it is told what to: the recipe takes a tenth of the time more.
DEFAULT = ("exact", "iris-sgd", "iris-adamw")


def build(
    name: str,
    dtype: str | None = None,
    accumulation_steps: int | None = None,
    updates: int | None = None,
) -> list[Check]:
    """The checks of a catalogue name, one a dtype, or of a problem file.

    Raises ProblemError for an unknown name and for settings that make no sense.
    """
    require(updates is None or updates >= 1, f"updates: {updates} must be at least 1")
    if name != "exact":
        require_short(updates or 1)
    if name not in CATALOGUE:
        return [from_file(name, dtype, accumulation_steps, updates)]
    title, make, evidence, defaults = CATALOGUE[name]
    settings: dict[str, Any] = {}
    if accumulation_steps is not None:
        require(
            accumulation_steps >= 1,
            f"accumulation_steps: {accumulation_steps} must be a whole number of at least 1",
        )
        settings["accumulation_steps"] = accumulation_steps
    checks = []
    for each in defaults if dtype is None else [dtype]:
        asked = updates or defaults.get(each, defaults["float64"])
        longest = EXACT_UPDATES.get(each, 0) + MORE if evidence == "exact" else asked
        problem = make(dtype=each, updates=min(asked, longest), **settings)
        checks.append(Check(name, title, problem, evidence, asked))
    return checks


def require_short(updates: int) -> None:
    """Raise ProblemError for more updates than the oracle can follow in minutes."""
    require(
        updates <= LONGEST,
        f"updates: the oracle takes {updates // 1200} minutes for {updates},"
        f" choose at most {LONGEST} with -u",
    )


def from_file(
    name: str, dtype: str | None, accumulation_steps: int | None, updates: int | None
) -> Check:
    """The check of a problem that `Problem.save` wrote.

    In bits, if the bitwise loop takes it, that is one example a micro-batch and a rule that it
    has; within rounding bounds otherwise.
    """
    require(
        name.endswith(".safetensors"),
        f"{name}: unknown problem, it must be {', '.join(CATALOGUE)} or a .safetensors file",
    )
    require(
        dtype is None and accumulation_steps is None,
        f"{name}: the file holds its own dtype and K, so --dtype and -k cannot change them",
    )
    problem = Problem.load(name)
    asked = min(updates or problem.updates, problem.updates)
    require_short(asked)
    evidence: Evidence = "bitwise" if has_bitwise_form(problem) else "bound"
    return Check(name, f"{problem.optimizer.name} on {name}", problem, evidence, asked)


def has_bitwise_form(problem: Problem) -> bool:
    """Whether `bitwise.py` takes a problem, as it says itself too."""
    return (
        all(len(x) == 1 for x, _ in problem.micro_batches)
        and problem.uses_only("learning_rates", "max_norm")
        and problem.optimizer.name in ("sgd", "adam", "adamw", "lion")
    )


@dataclass(frozen=True)
class Outcome:
    """What came of a check: a comparison or a failure for each framework, in their order.

    told: what a fast form tells of itself, by framework; PyTorch's may run without a compiler.
    """

    check: Check
    names: tuple[str, ...]
    form: Form
    comparisons: dict[str, Comparison]
    failures: dict[str, str]
    seconds: float
    told: dict[str, dict[str, bool]]

    def compiled(self, framework: str) -> bool:
        """Whether the framework ran a compiled form."""
        port = self.check.port(framework, self.form)
        return port.endswith((".compiled", ".fast")) and self.told[framework].get("compiled", True)


def submit(
    checks: Sequence[Check], workers: Mapping[str, Worker], folder: Path, form: Form
) -> None:
    """Hand all problems to all workers at once, as files in the folder."""
    for number, check in enumerate(checks):
        file = folder / f"{number}.safetensors"
        check.problem.save(file)
        for name, worker in workers.items():
            worker.submit(check.port(name, form), file, check.asked + 1)  # one too many shows


def collect(check: Check, workers: Mapping[str, Worker], form: Form) -> Outcome:
    """Wait for the trajectories of the next check that was submitted, and compare them."""
    comparisons: dict[str, Comparison] = {}
    failures: dict[str, str] = {}
    told: dict[str, dict[str, bool]] = {name: {} for name in workers}
    seconds = 0.0
    for name, worker in workers.items():
        try:
            actual, state = worker.result_with_state()
            told[name] = {key: bool(state[key][0].all()) for key in TOLD if key in state}
            started = time.perf_counter()
            comparisons[name] = check.compare(actual)
            seconds += time.perf_counter() - started
        except Refused as refusal:
            failures[name] = f"does not support it: {refusal}"
        except ValueError as error:
            failures[name] = f"cannot be compared: {error}"
        if check.updates == 0:
            failures[name] = "nothing was compared: no update of this problem is exact"
    return Outcome(check, tuple(workers), form, comparisons, failures, seconds, told)
