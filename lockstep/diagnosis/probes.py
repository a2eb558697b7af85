"""The problems that a port is driven with: each is small, and shows what the others do not.

At most seven micro-batches, of seven features and three outputs but for a few: a port compiles few
shapes. Each probe names its ingredients, so that what differs, and what does not, tells where a
port goes wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from lockstep.problem import Problem, split
from lockstep.problem.settings import LossScale, Optimizer, Schedule

FEATURES, OUTPUTS, MICRO_BATCHES = 7, 3, 7
EQUAL = (2,) * MICRO_BATCHES
RAGGED = (1, 3, 2, 2, 1, 3, 2)
# So small that gradients do not move: what an update changes is the weight of each micro-batch.
TINY_RATE = 2.0**-20
TARGET = 0.5


@dataclass(frozen=True, eq=False)
class Probe:
    """A problem to drive a port with.

    ingredients: what the update needs beyond one micro-batch of plain SGD.
    """

    name: str
    title: str
    ingredients: frozenset[str]
    problem: Problem

    @property
    def limit(self) -> int:
        """How many updates to wait for: one more than there are micro-steps."""
        return self.problem.epochs * len(self.problem.micro_batches) + 1

    def in_dtype(self, dtype: str) -> Probe:
        """The same probe, its numbers rounded to another dtype."""
        if dtype == self.problem.dtype:
            return self
        return replace(self, problem=replace(self.problem, dtype=dtype))


def coefficients() -> Problem:
    """Micro-batch j has a feature of its own, so that an update shows with which weight it entered.

    Each has two examples, of opposite sign, whose gradients of b cancel.
    """
    x = np.zeros((2 * MICRO_BATCHES, FEATURES))
    for j in range(MICRO_BATCHES):
        x[2 * j, j], x[2 * j + 1, j] = 1, -1
    y = np.tile([[TARGET], [-TARGET]], (MICRO_BATCHES, OUTPUTS))
    return Problem(
        np.zeros((FEATURES, OUTPUTS)),
        np.zeros(OUTPUTS),
        split(x, y, EQUAL),
        epochs=2,
        accumulation_steps=3,
        optimizer=Optimizer("sgd", TINY_RATE),
    )


def random_problem(
    rng: np.random.Generator,
    sizes: Sequence[int] = RAGGED,
    k: int = 3,
    epochs: int = 2,
    outputs: int = OUTPUTS,
    features: int = FEATURES,
) -> Problem:
    """Ordinary numbers in micro-batches of these sizes, trained with SGD."""
    x = rng.normal(size=(sum(sizes), features))
    y = rng.normal(size=(sum(sizes), outputs))
    W, b = rng.normal(size=(features, outputs)), rng.normal(size=outputs)
    return Problem(
        W,
        b,
        split(x, y, sizes),
        epochs=epochs,
        accumulation_steps=k,
        optimizer=Optimizer("sgd", 0.05),
    )


def lifted(problem: Problem) -> Problem:
    """The same with larger targets in one window, where b's gradient alone is one to clip, too."""
    pairs = problem.micro_batches
    return replace(problem, micro_batches=[(x, y + 5) for x, y in pairs[:3]] + list(pairs[3:]))


def untouched(problem: Problem) -> Problem:
    """The same, where W has no part in the second window, nor in the last micro-batch of another.

    Its features are 0 there, so that its gradient is.
    """
    pairs = list(problem.micro_batches)
    for index in (2, 3, 4, 5):
        x, y = pairs[index]
        pairs[index] = (x * 0, y)
    return replace(problem, micro_batches=pairs)


def overflowing(problem: Problem, index: int) -> Problem:
    """The same with one micro-batch whose gradient is not finite; its window is to be skipped."""
    pairs = list(problem.micro_batches)
    x, y = pairs[index]
    pairs[index] = (x * 1e200, y * 1e200)
    return replace(problem, micro_batches=pairs, non_finite="skip")


def wide(rng: np.random.Generator) -> Problem:
    """Gradients that float32 holds, and whose sum it does not; no operation rounds in float64."""
    x = np.zeros((4, FEATURES))
    x[:, 0] = 1
    y = rng.integers(2**19, 2**20, size=(4, OUTPUTS)) / 2**20
    y[1::2] *= 2.0**-20
    return Problem(
        np.zeros((FEATURES, OUTPUTS)),
        np.zeros(OUTPUTS),
        split(x, y, [1] * 4),
        accumulation_steps=4,
        optimizer=Optimizer("sgd", 1.0),
    )


def rates(problem: Problem) -> list[float]:
    """Rates for a run, as many as one counted in micro-steps could ask for, all of them unequal."""
    count = (problem.updates + 1) * max(problem.accumulation_steps, 2) + 1
    return [0.08 * 0.75 ** (i % 5) + 0.001 * i for i in range(count)]


def moving(problem: Problem, optimizer: Optimizer) -> Problem:
    """The same with another optimizer, at a learning rate that changes with every update."""
    scale = optimizer.learning_rate / 0.05
    each = [scale * rate for rate in rates(problem)]
    return replace(problem, optimizer=optimizer, learning_rates=each)


Row = tuple[str, str, str, Problem]  # name, title, ingredients, problem
WINDOWED = "windows ragged partial epochs"
MOMENTUM = Optimizer("sgd", 0.02, momentum=0.9)
ADAM = Optimizer("adam", 0.05, betas=(0.8, 0.95), eps=0.05)
ADAMW = Optimizer("adamw", 0.05, betas=(0.8, 0.95), eps=0.01, weight_decay=0.5)
OPTIMIZERS = {
    "momentum": ("momentum", MOMENTUM),
    "nesterov": ("Nesterov's momentum", Optimizer("sgd", 0.02, momentum=0.8, nesterov=True)),
    "dampening": ("dampening", Optimizer("sgd", 0.02, momentum=0.7, dampening=0.4)),
    "momentum-decay": ("momentum and decay", replace(MOMENTUM, weight_decay=0.5)),
    "adam": ("Adam", ADAM),
    "adam-decay": ("Adam and decay", replace(ADAM, eps=0.01, weight_decay=0.5)),
    "adamw": ("AdamW", ADAMW),
    "amsgrad": ("AMSGrad", Optimizer("adam", 0.05, betas=(0.5, 0.6), eps=0.01, amsgrad=True)),
    "adamax": ("Adamax", Optimizer("adamax", 0.05, betas=(0.8, 0.9), eps=0.05)),
    "nadam": ("NAdam", Optimizer("nadam", 0.05, betas=(0.8, 0.95), eps=0.01)),
    "rmsprop": ("RMSprop", Optimizer("rmsprop", 0.02, alpha=0.8, eps=0.05)),
    "rmsprop-momentum": (
        "RMSprop and momentum",
        Optimizer("rmsprop", 0.01, alpha=0.8, eps=0.05, momentum=0.8),
    ),
    "rmsprop-centered": (
        "centered RMSprop",
        Optimizer("rmsprop", 0.02, alpha=0.6, eps=0.1, centered=True),
    ),
    "adagrad": (
        "Adagrad",
        Optimizer("adagrad", 0.1, eps=0.05, lr_decay=0.1, initial_accumulator_value=0.02),
    ),
    "adadelta": ("Adadelta", Optimizer("adadelta", 1.0, eps=0.01)),
    "lion": ("Lion", Optimizer("lion", 0.01, betas=(0.8, 0.9), weight_decay=0.5)),
}


@cache
def probes(seed: int = 0) -> tuple[Probe, ...]:
    """All probes; another seed gives other numbers."""
    rng = np.random.default_rng([1936, seed])
    # Every group draws from the same generator, so that their order is part of the numbers.
    groups = (
        *(of_windows, of_the_gradient, of_optimizers, of_moving_rates, of_adam, of_the_recipe),
        of_shapes,
    )
    return tuple(
        Probe(name, title, frozenset(ingredients.split()), problem)
        for group in groups
        for name, title, ingredients, problem in group(rng)
    )


def of_windows(rng: np.random.Generator) -> Iterator[Row]:
    """Which micro-batches enter which update, and with what weight."""
    yield "coefficients", "the weight of each micro-batch", "windows partial epochs", coefficients()
    # With another number of outputs, or a factor of that size could be another one.
    plain = random_problem(rng, (2,) * 6, k=1, epochs=1, outputs=2)
    yield "plain", "one micro-batch an update", "", plain
    yield "windows", "K = 3", "windows", random_problem(rng, (2,) * 6, epochs=1)
    yield "ragged", "ragged windows", "windows ragged", random_problem(rng, RAGGED[:6], epochs=1)
    yield "epochs", "three epochs", "windows epochs", random_problem(rng, (2,) * 4, k=2, epochs=3)
    yield "partial", "partial windows", WINDOWED, random_problem(rng)
    yield "rest", "partial windows of two micro-batches", WINDOWED, random_problem(rng, k=5)
    yield "long", "K longer than an epoch", WINDOWED, random_problem(rng, k=9, epochs=3)


def of_the_gradient(rng: np.random.Generator) -> Iterator[Row]:
    """What becomes of a window's gradient: its learning rate, clipping, its precision."""
    moved = random_problem(rng, RAGGED[:6])
    moved = replace(moved, learning_rates=rates(moved))
    yield "rates", "a learning rate for each update", "windows ragged epochs rates", moved
    clipped = lifted(replace(random_problem(rng, RAGGED[:6], epochs=4), max_norm=12.0))
    clipped = replace(clipped, optimizer=Optimizer("sgd", 0.1))
    yield "clip", "clipping", "windows ragged epochs clip", clipped
    hard = Optimizer("sgd", 0.5, momentum=0.5)
    hard_clipped = replace(random_problem(rng), max_norm=1.0, optimizer=hard)
    yield (
        "clip-hard",
        "clipping to less than any gradient",
        f"{WINDOWED} clip momentum",
        hard_clipped,
    )
    yield "wide", "wide numbers", "windows precision", wide(rng)


def of_optimizers(rng: np.random.Generator) -> Iterator[Row]:
    """Each optimizer, with settings that show: no β near 1, no small ε."""
    for name, (title, optimizer) in OPTIMIZERS.items():
        rule = f"momentum {name}" if optimizer.name == "sgd" else optimizer.name
        decay = " decay" * (optimizer.weight_decay > 0)
        problem = replace(random_problem(rng), optimizer=optimizer)
        yield name, title, f"{WINDOWED} {rule}{decay}", problem
    # Where an epoch has not K windows.
    often = replace(random_problem(rng, (2,) * 4, k=2, epochs=4), optimizer=MOMENTUM)
    yield "momentum-epochs", "momentum over four epochs", "windows epochs momentum", often


def of_moving_rates(rng: np.random.Generator) -> Iterator[Row]:
    """Whether a buffer holds gradients, or gradients times the learning rate of then."""
    for name, which, title in (
        ("momentum", "momentum", "momentum at a moving learning rate"),
        ("rmsprop", "rmsprop-momentum", "RMSprop with momentum at a moving learning rate"),
    ):
        problem = moving(random_problem(rng), OPTIMIZERS[which][1])
        yield f"{name}-rates", title, f"{WINDOWED} rates momentum {name}", problem


def of_adam(rng: np.random.Generator) -> Iterator[Row]:
    """Adam and AdamW with what else a fine-tuning loop has."""
    clipped = lifted(replace(random_problem(rng), optimizer=ADAM, max_norm=14.0))
    yield "clip-adam", "Adam and clipping", f"{WINDOWED} clip adam", clipped
    absent = untouched(replace(random_problem(rng), optimizer=ADAM))
    yield "untouched", "W has no part in some windows", f"{WINDOWED} adam untouched", absent
    alone = replace(random_problem(rng), optimizer=ADAMW, decay_bias=False)
    yield "groups", "decay of W alone", f"{WINDOWED} adamw decay groups", alone


def of_the_recipe(rng: np.random.Generator) -> Iterator[Row]:
    """Schedules, weights, policies, and windows that are not finite."""
    for decay in ("linear", "cosine"):
        problem = replace(random_problem(rng), schedule=Schedule(30, warmup=3, decay=decay))
        yield decay, f"warm-up and {decay} decay", f"{WINDOWED} schedule {decay}", problem
    weights = [rng.integers(0, 5, size) / 2 for size in RAGGED]
    weights = [each + (np.arange(len(each)) == 0) for each in weights]
    weights[1][-1] = 0.0
    weighted = replace(random_problem(rng), example_weights=weights)
    yield "weights", "weighted examples, and padding", f"{WINDOWED} weights", weighted
    for policy in ("drop", "carry"):
        problem = replace(random_problem(rng), partial_windows=policy)
        yield policy, f"partial windows: {policy}", f"{WINDOWED} {policy}", problem
    momentum = replace(MOMENTUM, weight_decay=0.1)
    skipped = overflowing(moving(random_problem(rng), momentum), 1)
    ingredients = f"{WINDOWED} momentum decay rates skip"
    yield "overflow", "a window that is not finite", ingredients, skipped
    scale = LossScale(initial=1024.0, growth_interval=2)
    scaled = overflowing(replace(random_problem(rng), optimizer=momentum), 4)
    title = "a loss scale, and a window that is not finite"
    ingredients = f"{WINDOWED} momentum decay scale skip"
    yield "scale-overflow", title, ingredients, replace(scaled, loss_scale=scale)
    clipped = replace(random_problem(rng), loss_scale=scale, non_finite="skip", max_norm=10.0)
    yield "loss-scale", "a loss scale, and clipping", f"{WINDOWED} clip scale", clipped


def of_shapes(rng: np.random.Generator) -> Iterator[Row]:
    """Where an axis has one element, so that what broadcasts or squeezes goes wrong."""
    one = random_problem(rng, RAGGED[:6], epochs=1, outputs=1)
    yield "single-output", "one output", "windows ragged single", one
    one = random_problem(rng, (1,) * 6, epochs=1, features=1)
    yield "single-feature", "one feature, and one example at a time", "windows single", one
    one = random_problem(rng, (3,), k=2, epochs=3)
    yield "single-batch", "one micro-batch an epoch", "partial epochs single", one
