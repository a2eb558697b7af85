"""The problems that fit a port: what it supports is asked in its own windows, and together.

A port that refuses partial or ragged windows is still asked about everything else. Then each two
things that a port supports meet in some probe: a mistake may need both.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from allpairspy import AllPairs

from lockstep.diagnosis.probes import (
    EQUAL,
    OPTIMIZERS,
    RAGGED,
    Probe,
    lifted,
    overflowing,
    random_problem,
    rates,
)
from lockstep.oracle import loop
from lockstep.problem import Problem, split
from lockstep.problem.settings import LossScale, Optimizer, Schedule

TOGETHER = "together"


class Windows(NamedTuple):
    """The windows of a problem: micro-batches, K, what becomes of partial ones, ingredients."""

    sizes: Sequence[int]
    steps: int
    policy: str
    ingredients: frozenset[str]


def windows(sizes: Sequence[int], steps: int, needed: str, policy: str = "apply") -> Windows:
    """Windows, and what they need of a port, whose policy is one of the ingredients."""
    return Windows(sizes, steps, policy, frozenset(needed.split()))


# Each has what those before it have, but for policies; "equal" are micro-batches of one size.
WINDOWS = {
    "plain": windows(EQUAL[:3], 1, ""),
    "windows": windows(EQUAL[:6], 3, "windows"),
    "equal": windows(EQUAL, 3, "windows partial"),
    "ragged": windows(RAGGED[:6], 3, "windows ragged"),
    "partial": windows(RAGGED, 3, "windows ragged partial"),
    "equal drop": windows(EQUAL, 3, "windows partial drop", "drop"),
    "drop": windows(RAGGED, 3, "windows ragged partial drop", "drop"),
    "equal carry": windows(EQUAL, 3, "windows partial carry", "carry"),
    "carry": windows(RAGGED, 3, "windows ragged partial carry", "carry"),
}
# What a probe is asked in that a port refuses as it is, and what is then left out in it.
NARROWER = {
    "equal": {"ragged"},
    "ragged": {"partial"},
    "windows": {"partial", "ragged"},
    "plain": {"partial", "ragged", "windows"},
}
# What these probes are about would not be in them, or not without partial windows.
APART, POLICIES = {"single", "precision"}, {"drop", "carry"}
SGD = Optimizer("sgd", 0.05)
DECAY = 0.5
# What a field of a row can be, the plain value first, and the ingredient that it is; and what that
# is not without.
CHOICES: dict[str, dict[Any, str]] = {
    "rate": {"": "", "rates": "rates", "linear": "linear", "cosine": "cosine"},
    "clip": {False: "", True: "clip"},
    "groups": {False: "", True: "groups"},
    "weights": {False: "", True: "weights"},
    "finite": {"": "", "skip": "skip", "scale": "scale"},
    "outputs": {3: "", 1: "single"},
}
IMPLIED = {
    "linear": ["schedule"],
    "cosine": ["schedule"],
    "scale": ["skip"],
}
WORDS = {
    "rates": "moving rates",
    "linear": "a linear decay",
    "cosine": "a cosine decay",
    "clip": "clipping",
    "groups": "decay of W alone",
    "weights": "weighted examples",
    "skip": "a window that is not finite",
    "scale": "a loss scale",
    "single": "one output",
}
RULES = {each.name: title for title, each in reversed(OPTIMIZERS.values())} | {"sgd": "SGD"}
# Of the norms of a run's gradients, which share of the median one clips to.
CLIPPED = 0.9


def narrowed(probe: Probe, name: str) -> Probe | None:
    """A probe in narrower windows, one of NARROWER; None where that is the same, or no use."""
    left_out = NARROWER[name] & probe.ingredients
    apart = APART if name == "equal" else APART | POLICIES
    if not left_out or probe.ingredients & apart:
        return None
    problem, narrow = probe.problem, WINDOWS[name]
    x, y = problem.examples
    ends = np.cumsum(narrow.sizes)
    sizes = narrow.sizes[: int((ends <= len(x)).sum())]
    count = sum(sizes)
    weights = problem.example_weights
    if weights is not None:
        # None of the windows may be padding alone.
        each = np.concatenate(weights)[:count] + 0.5
        weights = np.split(each, ends[: len(sizes) - 1])
    asked = replace(
        problem,
        micro_batches=split(x[:count], y[:count], sizes),
        accumulation_steps=narrow.steps,
        example_weights=weights,
    )
    title = f"{probe.title}, in {name} windows" if name != "windows" else f"{probe.title}, K = 3"
    return Probe(f"{probe.name}.{name}", title, probe.ingredients - left_out, asked)


@dataclass(frozen=True)
class Row:
    """What meets in a problem: windows, optimizer, and the settings of a recipe."""

    windows: str = "plain"
    optimizer: Optimizer = SGD
    rate: str = ""
    clip: bool = False
    groups: bool = False
    weights: bool = False
    finite: str = ""
    outputs: int = 3


def together(supported: Sequence[Probe], seed: int = 0) -> list[Probe]:
    """Probes in which each two things meet that a port supports, one at a time so far."""
    values = supported_values(supported)
    several = {name: each for name, each in values.items() if len(each) > 1}
    if len(several) < 2 or not all(values.values()):
        return []
    only = {name: each[0] for name, each in values.items() if name not in several}

    def row(chosen: Sequence[Any]) -> Row:
        return Row(**only, **dict(zip(several, chosen, strict=False)))

    probes = (meeting(sensible(row(chosen)), seed) for chosen in AllPairs(list(several.values())))
    # What was asked before is not asked again.
    known = [probe.ingredients for probe in supported]
    return [probe for probe in probes if probe.ingredients not in known]


def alone(supported: Sequence[Probe], seed: int = 0) -> list[Probe]:
    """What no probe asks of a port, one thing at a time: with an optimizer that it has, and decay.

    The fixed probes have these with SGD, and decay with some of the rules.
    """
    values = supported_values(supported)
    if not values["optimizer"]:
        return []
    base = Row(values["windows"][0], max(values["optimizer"], key=decays))
    found = having(supported)
    rows = [
        replace(base, **{name: value})
        for name, choices in CHOICES.items()
        for value, needed in choices.items()
        if needed and needed not in found
    ]
    equal = "" if "ragged" in found else "equal "
    rows += [replace(base, windows=equal + policy) for policy in sorted(POLICIES - found)]
    rules = (rule for rule in values["optimizer"] if "decay" in found and not decays(rule))
    decaying = (replace(base, optimizer=replace(rule, weight_decay=DECAY)) for rule in rules)
    return [meeting(sensible(row), seed) for row in (*rows, *decaying)]


def having(supported: Sequence[Probe]) -> frozenset[str]:
    """The ingredients of all these probes."""
    return frozenset[str]().union(*(probe.ingredients for probe in supported))


def supported_values(supported: Sequence[Probe]) -> dict[str, list[Any]]:
    """What a port supports of each field of a row, the plain value first."""
    found = having(supported)
    used = {probe.problem.optimizer for probe in supported}
    names = {probe.name.partition(".")[0] for probe in supported}
    # One of each rule, with decay and a momentum if it may be.
    each = sorted((OPTIMIZERS[name][1] for name in OPTIMIZERS if name in names), key=fullest)
    optimizers = [*{optimizer.name: optimizer for optimizer in each}.values()]
    decaying = (replace(rule, weight_decay=DECAY) for rule in optimizers)
    optimizers = [more if more in used else rule for rule, more in zip(optimizers, decaying)]
    if any(rule.name == "sgd" for rule in used):
        optimizers.insert(0, SGD)
    values = {
        name: [value for value, needed in choices.items() if not needed or needed in found]
        for name, choices in CHOICES.items()
    }
    return {"optimizer": optimizers, "windows": list(supported_windows(supported)), **values}


def supported_windows(supported: Sequence[Probe]) -> Iterator[str]:
    """The fullest windows that a port supports, of each policy that it does."""
    asked = [probe.ingredients for probe in supported]
    for policy in ("apply", *sorted(POLICIES)):
        names = (
            name
            for name, each in WINDOWS.items()
            if each.policy == policy and any(each.ingredients <= some for some in asked)
        )
        yield from list(names)[-1:]


def decays(optimizer: Optimizer) -> bool:
    """Whether an optimizer is set to decay."""
    return optimizer.weight_decay > 0


def fullest(optimizer: Optimizer) -> tuple[bool, float]:
    """By which an optimizer has more in it than another of its rule."""
    return decays(optimizer), optimizer.momentum


def sensible(row: Row) -> Row:
    """A row that is a problem: what decays in W alone does decay."""
    if decays(row.optimizer) or not row.groups:
        return row
    return replace(row, optimizer=replace(row.optimizer, weight_decay=DECAY))


@lru_cache(maxsize=1024)
def meeting(row: Row, seed: int) -> Probe:
    """The probe of a row; the same row is the same probe for every port."""
    sizes, steps, policy, _ = WINDOWS[row.windows]
    rng = np.random.default_rng([1937, seed, zlib.crc32(repr(row).encode())])
    problem = random_problem(rng, sizes, steps, outputs=row.outputs)
    problem = replace(problem, optimizer=row.optimizer, partial_windows=policy)
    if row.weights:
        weights = tuple(rng.integers(1, 5, size) / 2 for size in sizes)
        problem = replace(problem, example_weights=weights)
    if row.rate == "rates":
        scale = row.optimizer.learning_rate / 0.05
        problem = replace(problem, learning_rates=[scale * rate for rate in rates(problem)])
    elif row.rate:
        # A linear decay ends before the run does, a cosine after it.
        schedule = Schedule({"linear": 4, "cosine": 30}[row.rate], warmup=1, decay=row.rate)
        problem = replace(problem, schedule=schedule)
    problem = replace(problem, decay_bias=not row.groups)
    if row.clip:
        problem = lifted(problem)
        problem = replace(problem, max_norm=median_norm(problem) * CLIPPED)
    if row.finite:
        problem = overflowing(problem, 1)
    if row.finite == "scale":
        problem = replace(problem, loss_scale=LossScale(initial=1024.0, growth_interval=2))
    name = f"{TOGETHER}.{zlib.crc32(repr(row).encode()):08x}"
    found = frozenset(ingredients(row))
    return Probe(name, ", ".join(words(row)), found, problem)


def ingredients(row: Row) -> Iterator[str]:
    """What the update of a row needs, as the fixed probes name it."""
    yield "epochs"
    yield from WINDOWS[row.windows].ingredients
    for name, choices in CHOICES.items():
        if needed := choices[getattr(row, name)]:
            yield needed
            yield from IMPLIED.get(needed, ())
    rule = row.optimizer.name
    if rule != "sgd":
        yield rule
    elif row.optimizer.momentum:
        yield from ("momentum", "momentum-decay")
    if decays(row.optimizer):
        yield "decay"


def words(row: Row) -> Iterator[str]:
    """What meets in a row, in words."""
    yield RULES[row.optimizer.name]
    yield from ("decay",) * decays(row.optimizer)
    yield {"plain": "K = 1", "windows": "K = 3"}.get(row.windows, f"{row.windows} windows")
    yield from (WORDS[name] for name in ingredients(row) if name in WORDS)


def median_norm(problem: Problem) -> float:
    """The median norm of the gradients of a run without clipping."""
    norms = [np.linalg.norm(each.gradient) for each in loop.run(problem, "float64")]
    return float(f"{np.median(norms):.3g}")
