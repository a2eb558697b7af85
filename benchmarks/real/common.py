"""What the real runs of all frameworks have in common: initial values, data, recipes, mistakes.

Four small models: an MLP, a convolutional net with batch normalisation, a GRU whose state goes on
from window to window, and a decoder of one block with a tied head. Values are in PyTorch's names
and layouts: dense (out, in), convolution (out, in, height, width), GRU gates r, z, n.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
MODELS = ("mlp", "conv", "gru", "transformer")
UPDATES = 6

FEATURES, CLASSES, HIDDEN = 6, 3, 10  # mlp
SIDE, CHANNELS, FILTERS = 6, 2, 5  # conv
INPUTS, UNITS, OUTPUTS, LENGTH = 3, 7, 2, 5  # gru
VOCABULARY, WIDTH, HEADS, POSITIONS, INNER = 13, 8, 2, 9, 18  # transformer
PADDING = 0  # the token that is no target


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: the optimizer, a rate for each update, clipping, decay.

    optimizer: "sgd" (with momentum), "adam" (decay coupled, on all) or "adamw" (on what has two
    axes or more).
    """

    optimizer: str
    peak: float
    max_norm: float | None
    weight_decay: float = 0.0
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    warmup: int = 2

    @property
    def rates(self) -> list[float]:
        """The rate of each update: a warm-up, and a cosine to a tenth of the peak."""
        found = []
        for update in range(4 * UPDATES):
            progress = update / (4 * UPDATES)
            decay = 0.55 + 0.45 * math.cos(math.pi * progress)
            found.append(self.peak * min(1.0, (update + 1) / self.warmup) * decay)
        return found


RECIPES = {
    "mlp": Recipe("sgd", 0.1, None, weight_decay=0.01),
    "conv": Recipe("adam", 0.02, 0.3, weight_decay=0.02),
    "gru": Recipe("adamw", 0.02, 0.5, weight_decay=0.1),
    "transformer": Recipe("adamw", 0.02, 0.25, weight_decay=0.1),
}


def initial(model: str, dtype: str, seed: int = 0) -> dict[str, Array]:
    """The initial values of a model, under PyTorch's names."""
    numbers = np.random.default_rng([seed, MODELS.index(model)])
    shapes: dict[str, tuple[int, ...]] = {
        "mlp": {
            "hidden.weight": (HIDDEN, FEATURES), "hidden.bias": (HIDDEN,),
            "middle.weight": (HIDDEN, HIDDEN), "middle.bias": (HIDDEN,),
            "output.weight": (CLASSES, HIDDEN), "output.bias": (CLASSES,),
        },
        "conv": {
            "conv.weight": (FILTERS, CHANNELS, 3, 3), "conv.bias": (FILTERS,),
            "norm.weight": (FILTERS,), "norm.bias": (FILTERS,),
            "output.weight": (CLASSES, FILTERS), "output.bias": (CLASSES,),
        },
        "gru": {
            "gru.weight_ih_l0": (3 * UNITS, INPUTS), "gru.weight_hh_l0": (3 * UNITS, UNITS),
            "gru.bias_ih_l0": (3 * UNITS,), "gru.bias_hh_l0": (3 * UNITS,),
            "output.weight": (OUTPUTS, UNITS), "output.bias": (OUTPUTS,),
        },
        "transformer": {
            "embedding.weight": (VOCABULARY, WIDTH), "positions.weight": (POSITIONS, WIDTH),
            "norm1.weight": (WIDTH,), "norm1.bias": (WIDTH,),
            "attention.query.weight": (WIDTH, WIDTH), "attention.query.bias": (WIDTH,),
            "attention.key.weight": (WIDTH, WIDTH), "attention.key.bias": (WIDTH,),
            "attention.value.weight": (WIDTH, WIDTH), "attention.value.bias": (WIDTH,),
            "attention.output.weight": (WIDTH, WIDTH), "attention.output.bias": (WIDTH,),
            "norm2.weight": (WIDTH,), "norm2.bias": (WIDTH,),
            "inner.weight": (INNER, WIDTH), "inner.bias": (INNER,),
            "outer.weight": (WIDTH, INNER), "outer.bias": (WIDTH,),
            "norm3.weight": (WIDTH,), "norm3.bias": (WIDTH,),
        },
    }[model]  # fmt: skip
    found = {}
    for name, shape in shapes.items():
        # As libraries begin: what normalises at 1 and 0, biases at 0, the rest drawn.
        if name.startswith("norm") and name.endswith("weight"):
            found[name] = np.ones(shape, dtype)
        elif "bias" in name and not name.startswith("gru"):
            found[name] = np.zeros(shape, dtype)
        else:
            scale = 1 / math.sqrt(math.prod(shape[1:]) or 1)
            found[name] = (scale * numbers.standard_normal(shape)).astype("float32").astype(dtype)
    return found


def windows(
    model: str, dtype: str, accumulation_steps: int, updates: int = UPDATES, seed: int = 1
) -> list[list[tuple[Array, Array]]]:
    """The windows of a run, each a list of micro-batches (x, y), ragged.

    mlp: x (examples, FEATURES), y (examples,) classes. conv: x (examples, SIDE, SIDE, CHANNELS).
    gru: x (4, LENGTH, INPUTS), y (4, LENGTH, OUTPUTS). transformer: x (3, time) tokens, y the next
    tokens, PADDING after a sequence's end.
    """
    numbers = np.random.default_rng([seed, MODELS.index(model)])

    def drawn(*shape: int) -> Array:
        return numbers.standard_normal(shape).astype("float32").astype(dtype)

    def micro_batch() -> tuple[Array, Array]:
        examples = int(numbers.integers(2, 6))
        if model == "mlp":
            return drawn(examples, FEATURES), numbers.integers(0, CLASSES, examples)
        if model == "conv":
            return drawn(examples, SIDE, SIDE, CHANNELS), numbers.integers(0, CLASSES, examples)
        if model == "gru":
            return drawn(4, LENGTH, INPUTS), drawn(4, LENGTH, OUTPUTS)
        tokens = numbers.integers(1, VOCABULARY, (3, POSITIONS))
        for row, length in zip(tokens, numbers.integers(3, POSITIONS + 1, 3), strict=True):
            row[length:] = PADDING
        return tokens[:, :-1], tokens[:, 1:]

    return [[micro_batch() for _ in range(accumulation_steps)] for _ in range(updates)]


def happens(event: str, framework: str) -> bool:
    """Whether somebody's loop in a framework does so; Keras counts its micro-steps itself."""
    return framework != "keras" or event not in ("resumed-in-window", "step-left-out")


def again(windows: list[Any], mistakes: Collection[str]) -> list[Any]:
    """The windows of a run, whose data may begin anew after the third."""
    if "data-restarts" in mistakes:
        return (windows[: THIRD + 1] + windows)[: len(windows)]
    return windows


def counted(model: str, y: Array) -> int:
    """How many examples, or tokens, a micro-batch's loss is a sum over.

    A classifier's loss is cross entropy; the GRU's the squared error, summed over time and outputs
    (an example counts once); the transformer's cross entropy over targets that are not PADDING.
    """
    return int((y != PADDING).sum()) if model == "transformer" else len(y)


# What can be planted in a run, by what it is about. Names are the catalogue's where it has them.
GRADIENT = ("mean-of-means", "no-divide", "missing-zero-grad", "skipped-micro-batch")
AFTER = (
    "clip-ignored", "clip-by-value", "clip-per-tensor", "wd-on-bias", "wd-ignored",
    "l2-vs-decoupled", "eps-default", "other-betas", "sched-off-by-one", "sched-per-microstep",
    "missing-bias-correction", "momentum-ema", "rate-times-10",
)  # fmt: skip
MODEL = (
    "gelu", "layernorm-epsilon", "attention-scale", "label-shift", "dropout-on", "padding-counted",
    "transposed-kernel", "untied", "batchnorm-eval",
)  # fmt: skip
# What happens around a loop, in its third window or after it: a validation that resets gradients,
# a run that goes on in mid-window without them, an optimizer or data that begin anew, a step that
# is left out.
AROUND = (
    "cleared-in-window", "resumed-in-window", "state-dropped", "data-restarts", "step-left-out",
)  # fmt: skip
THIRD = 2
MISTAKES = GRADIENT + AFTER + MODEL + AROUND
# Those before the model, by the stage that they change: of each, one at a time can be planted.
STAGED = (
    GRADIENT,
    tuple(name for name in AFTER if name.startswith("clip")),
    tuple(name for name in AFTER if name.startswith(("wd", "l2"))),
    ("eps-default",),
    ("other-betas", "momentum-ema"),
    ("missing-bias-correction",),
    tuple(name for name in AFTER if name.startswith(("sched", "rate"))),
)


def applies(mistake: str, model: str, accumulation_steps: int) -> bool:
    """Whether a mistake makes a difference to a run of this model and K."""
    recipe = RECIPES[model]
    if mistake in AROUND:
        # The GRU's own state would have to be kept too.
        return accumulation_steps > 2 and (mistake, model) != ("resumed-in-window", "gru")
    if mistake in ("mean-of-means", "no-divide", "skipped-micro-batch"):
        # With K micro-batches of as many examples, the mean of means is the mean.
        return accumulation_steps > 1 and (mistake != "mean-of-means" or model != "gru")
    if mistake == "sched-per-microstep":
        return accumulation_steps > 1
    if mistake.startswith("clip"):
        return recipe.max_norm is not None
    needs = {
        "wd-on-bias": ("adamw",), "l2-vs-decoupled": ("adamw",), "eps-default": ("adam", "adamw"),
        "other-betas": ("adam", "adamw"), "missing-bias-correction": ("adam", "adamw"),
        "momentum-ema": ("sgd",),
    }  # fmt: skip
    if mistake in needs:
        return recipe.optimizer in needs[mistake]
    models = {
        "gelu": ("mlp", "transformer"), "layernorm-epsilon": ("transformer",),
        "attention-scale": ("transformer",), "label-shift": ("transformer",),
        "dropout-on": ("mlp", "transformer"), "padding-counted": ("transformer",),
        "transposed-kernel": ("mlp", "transformer"), "untied": ("transformer",),
        "batchnorm-eval": ("conv",),
    }  # fmt: skip
    return model in models.get(mistake, MODELS)
