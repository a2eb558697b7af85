"""Real runs in JAX: optax chains, plain pytrees and flax' layers, in their own names and layouts.

Dense kernels are (in, out), convolutions (height, width, in, out), attention's (width, heads, head
width); a GRU is six dense layers, as flax has it, with the biases of PyTorch's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import optax

import lockstep.record
from benchmarks.real import common
from benchmarks.real.common import Array, Recipe

Tree = dict[str, Any]
# Gets the name of a layer, what comes out of it and what goes in, and returns what comes out.
Show = Callable[..., Any]
GATES = ("r", "z", "n")


def run(
    folder: str | Path,
    model: str,
    dtype: str,
    accumulation_steps: int,
    mistakes: Collection[str] = (),
    updates: int = common.UPDATES,
    record: bool = True,
    full: int = 100,
    activations: bool = False,
    jitted: str = "parts",
    multi_steps: bool = False,
    show_clipped: bool = True,
) -> dict[str, Array]:
    """Train a model and record it; the final parameters by name.

    jitted: "parts" (gradients and update on their own), "window" (all of a window at once) or "no".
    multi_steps: whether optax.MultiSteps accumulates. show_clipped: whether the chain shows what
    was clipped.
    """
    with jax.enable_x64(dtype == "float64"):
        options = {"full": full, "activations": activations}
        recorder = lockstep.record.jax(folder, **options) if record else None
        clip = (
            recorder.clipped if recorder and show_clipped else lambda transformation: transformation
        )
        optimizer: Any = chain(model, dtype, accumulation_steps, mistakes, clip)
        if multi_steps:
            optimizer = optax.MultiSteps(optimizer, accumulation_steps, accumulator_dtype=None)
        show = recorder.activation if recorder else unseen
        gradients = jax.value_and_grad(loss_of(model, mistakes, show), has_aux=True)
        seen = optimizer, gradients
        if recorder:
            seen = recorder.wrap(optimizer), recorder.gradient(gradients)
        windows = common.again(common.windows(model, dtype, accumulation_steps, updates), mistakes)
        begun = None
        if "resumed-in-window" in mistakes:
            begun = train(
                model, dtype, (), windows[: common.THIRD], optimizer, gradients, jitted, multi_steps
            )
            windows = windows[common.THIRD :]
        trained, *_ = train(model, dtype, mistakes, windows, *seen, jitted, multi_steps, begun)
        if recorder:
            recorder.close()
        leaves = jax.tree_util.tree_flatten_with_path(trained)[0]
        return {"/".join(key.key for key in path): np.asarray(leaf) for path, leaf in leaves}


def train(
    model: str, dtype: str, mistakes: Collection[str], windows: list[Any], optimizer: Any,
    gradients: Callable[..., Any], jitted: str, multi_steps: bool, begun: Any = None,
) -> Any:  # fmt: skip
    """The training loop: the parameters that it ends with, the optimizer's state, and the model's.

    begun: these of a run that is gone on with.
    """
    params: Tree = native(model, common.initial(model, dtype), mistakes)
    hidden = jnp.zeros((4, common.UNITS), dtype) if model == "gru" else None
    params, state, hidden = begun or (params, optimizer.init(params), hidden)
    totals = jax.tree.map(jnp.zeros_like, params)

    def update(params: Tree, state: Any, totals: Tree) -> tuple[Tree, Any]:
        changes, state = optimizer.update(totals, state, params)
        return optax.apply_updates(params, changes), state

    if jitted == "parts":
        gradients, update = jax.jit(gradients), jax.jit(update, donate_argnums=(0, 1))

    def window(
        params: Tree, state: Any, hidden: Any, totals: Tree, batches: Any, index: int
    ) -> Any:
        third = index == (0 if begun else common.THIRD)
        if "missing-zero-grad" not in mistakes:
            totals = jax.tree.map(jnp.zeros_like, totals)
        weights = weights_of(model, [y for _, y in batches], mistakes)
        for number, ((x, y), weight) in enumerate(zip(batches, weights, strict=True)):
            if third and begun and number < 2:
                continue
            if third and "cleared-in-window" in mistakes and number == 2:
                totals = jax.tree.map(jnp.zeros_like, totals)
            (_, hidden), found = gradients(params, hidden, x, y)
            if "skipped-micro-batch" in mistakes and number == len(batches) - 1 > 0:
                continue
            if multi_steps:
                scaled = jax.tree.map(lambda g, w=weight: g * (w * len(weights)), found)
                params, state = update(params, state, scaled)
            else:
                totals = jax.tree.map(lambda t, g, w=weight: t + g * w, totals, found)
        if not multi_steps and not (third and "step-left-out" in mistakes):
            params, state = update(params, state, totals)
        return params, state, hidden, totals

    if jitted == "window":
        window = windowed(window)
    for index, batches in enumerate(windows):
        if "state-dropped" in mistakes and index == common.THIRD + 1:
            state = optimizer.init(params)
        batches = [(x, shifted(y) if "label-shift" in mistakes else y) for x, y in batches]
        params, state, hidden, totals = window(params, state, hidden, totals, batches, index)
    return params, state, hidden


def windowed(window: Callable[..., Any]) -> Callable[..., Any]:
    """A window as one compiled program: numbers of examples are constants in it."""

    def compiled(
        params: Tree, state: Any, hidden: Any, totals: Tree, batches: Any, index: int
    ) -> Any:
        # Targets count what is no padding, so they are no arguments of the program.
        program = jax.jit(lambda *moving: window(*moving, batches, index), donate_argnums=(0, 1))
        return program(params, state, hidden, totals)

    return compiled


def weights_of(model: str, targets: list[Array], mistakes: Collection[str]) -> list[float]:
    """What each micro-batch's mean gradient is multiplied by."""
    if "no-divide" in mistakes:
        return [1.0] * len(targets)
    if "mean-of-means" in mistakes:
        return [1 / len(targets)] * len(targets)
    all_of_them = "padding-counted" in mistakes
    counts = [y.size if all_of_them else common.counted(model, y) for y in targets]
    return [count / sum(counts) for count in counts]


def shifted(y: Array) -> Array:
    """Targets one further than they should be."""
    moved = np.roll(y, -1, axis=1)
    moved[:, -1] = common.PADDING
    return moved


def chain(
    model: str,
    dtype: str,
    accumulation_steps: int,
    mistakes: Collection[str],
    clip: Callable[[Any], Any],
) -> Any:
    """The optimizer of a model's recipe."""
    recipe = common.RECIPES[model]
    decay = 0.0 if "wd-ignored" in mistakes else recipe.weight_decay
    mask = decayed if recipe.optimizer == "adamw" and "wd-on-bias" not in mistakes else None
    adding = optax.add_decayed_weights(decay, mask)
    rule = rule_of(recipe, mistakes)
    decoupled = recipe.optimizer == "adamw" and "l2-vs-decoupled" not in mistakes
    links = [rule, adding] if decoupled else [adding, rule]
    if recipe.max_norm is not None and "clip-ignored" not in mistakes:
        links.insert(0, clip(clipping(recipe.max_norm, mistakes)))
    rates = jnp.asarray(recipe.rates, dtype) * (10 if "rate-times-10" in mistakes else 1)
    late = 1 if "sched-off-by-one" in mistakes else 0
    stride = accumulation_steps if "sched-per-microstep" in mistakes else 1
    schedule = optax.scale_by_learning_rate(lambda count: rates[(count + late) * stride])
    return optax.chain(*links, schedule)


def decayed(params: Tree) -> Tree:
    """Which parameters decay: those that have two axes in PyTorch."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path[-1].key in ("kernel", "embedding"), params
    )


def clipping(max_norm: float, mistakes: Collection[str]) -> Any:
    """What clips a window's gradient."""
    if "clip-by-value" in mistakes:
        return optax.clip(max_norm)
    if "clip-per-tensor" in mistakes:

        def shorter(g: Any) -> Any:
            return g * jnp.minimum(1.0, max_norm / jnp.linalg.norm(g.reshape(-1)))

        return optax.stateless(lambda updates, _: jax.tree.map(shorter, updates))
    return optax.clip_by_global_norm(max_norm)


def rule_of(recipe: Recipe, mistakes: Collection[str]) -> Any:
    """The optimizer's own rule."""
    if recipe.optimizer == "sgd":
        if "momentum-ema" in mistakes:
            return optax.ema(recipe.momentum, debias=False)
        return optax.trace(recipe.momentum)
    first, second = (0.9, 0.999) if "other-betas" in mistakes else recipe.betas
    eps = 1e-3 if "eps-default" in mistakes else recipe.eps
    if "missing-bias-correction" in mistakes:
        return uncorrected(first, second, eps)
    return optax.scale_by_adam(first, second, eps)


def uncorrected(first: float, second: float, eps: float) -> Any:
    """Adam without the correction of its bias, as a person writes it."""
    ready = optax.scale_by_adam(first, second, eps)

    def update(gradients: Tree, state: Any, params: Any = None) -> tuple[Tree, Any]:
        del params
        mu = jax.tree.map(lambda m, g: first * m + (1 - first) * g, state.mu, gradients)
        nu = jax.tree.map(lambda v, g: second * v + (1 - second) * g * g, state.nu, gradients)
        changes = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), mu, nu)
        return changes, optax.ScaleByAdamState(state.count + 1, mu, nu)

    return optax.GradientTransformation(ready.init, update)


# Models: parameters as JAX has them, and losses (a micro-batch's mean, and what goes on).


def native(model: str, values: dict[str, Array], mistakes: Collection[str]) -> Tree:
    """PyTorch's initial values in this framework's names and layouts."""
    found: Tree = {}
    for name, value in values.items():
        module, kind = name.rsplit(".", 1)
        if model == "gru" and module == "gru":
            side = "i" if "_ih_" in kind else "h"
            for gate, part in zip(GATES, np.split(value, 3), strict=True):
                leaf = "bias" if "bias" in kind else "kernel"
                found.setdefault("gru", {}).setdefault(side + gate, {})[leaf] = jnp.asarray(part.T)
            continue
        place = found
        for part_of_name in module.replace("attention.output", "attention.out").split("."):
            place = place.setdefault(part_of_name, {})
        leaf, array = layout(module, kind, value)
        place[leaf] = jnp.asarray(array)
    if "untied" in mistakes:
        found["head"] = {"kernel": jnp.asarray(values["embedding.weight"].T)}
    return found


def layout(module: str, kind: str, value: Array) -> tuple[str, Array]:
    """The name of a leaf and its array, in flax' layout."""
    heads = (common.HEADS, common.WIDTH // common.HEADS)
    if module in ("embedding", "positions"):
        return "embedding", value
    if module.startswith("norm"):
        return ("scale" if kind == "weight" else "bias"), value
    if module == "attention.output" and kind == "weight":
        return "kernel", value.T.reshape(*heads, common.WIDTH)
    if module.startswith("attention") and module != "attention.output":
        if kind == "weight":
            return "kernel", value.T.reshape(common.WIDTH, *heads)
        return "bias", value.reshape(heads)
    if value.ndim == 4:
        return "kernel", value.transpose(2, 3, 1, 0)
    return ("kernel" if kind == "weight" else "bias"), value.T


def loss_of(model: str, mistakes: Collection[str], show: Show) -> Callable[..., Any]:
    """The loss of a model: (parameters, hidden, x, y) to (mean, hidden)."""
    if model in ("mlp", "gru"):
        return {"mlp": mlp_loss, "gru": gru_loss}[model](frozenset(mistakes), show)
    return {"conv": conv_loss, "transformer": transformer_loss}[model](frozenset(mistakes))


def unseen(name: str, value: Any, inputs: Any = ()) -> Any:
    """The value, where no recorder looks at what comes out of layers."""
    del name, inputs
    return value


def cross_entropy(logits: Any, y: Any) -> Any:
    """The cross entropy of each example."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, y)


def dropped(mistakes: Collection[str], x: Any) -> Any:
    """Dropout where it should be off."""
    if "dropout-on" not in mistakes:
        return x
    kept = jax.random.bernoulli(jax.random.key(7), 0.9, x.shape)
    return jnp.where(kept, x / 0.9, 0)


def dense(layer: Tree, x: Any) -> Any:
    """A dense layer."""
    return x @ layer["kernel"] + layer["bias"]


def mlp_loss(mistakes: Collection[str], show: Show) -> Callable[..., Any]:
    """Three dense layers, in plain JAX."""
    rough = "gelu" in mistakes

    def layer(name: str, parameters: Tree, x: Any) -> Any:
        return show(name, dense(parameters, x), (x,))

    def loss(params: Tree, hidden: Any, x: Any, y: Any) -> Any:
        middle = dict(params["middle"])
        if "transposed-kernel" in mistakes:
            middle["kernel"] = middle["kernel"].T
        first = jax.nn.gelu(layer("hidden", params["hidden"], x), approximate=rough)
        second = layer("middle", middle, dropped(mistakes, first))
        logits = layer("output", params["output"], jax.nn.gelu(second, approximate=rough))
        return cross_entropy(show("", logits, (x,)), y).mean(), hidden

    return loss


class Conv(flax.linen.Module):
    """A convolution with batch normalisation, in flax."""

    frozen: bool
    dtype: Any

    @flax.linen.compact
    def __call__(self, x: Any) -> Any:
        """The logits."""
        kind = {"dtype": self.dtype, "param_dtype": self.dtype}
        x = flax.linen.Conv(common.FILTERS, (3, 3), name="conv", **kind)(x)
        x = flax.linen.BatchNorm(self.frozen, epsilon=1e-5, name="norm", **kind)(x)
        x = flax.linen.relu(x).mean((1, 2))
        return flax.linen.Dense(common.CLASSES, name="output", **kind)(x)


def conv_loss(mistakes: Collection[str]) -> Callable[..., Any]:
    """The loss of the convolutional net; running statistics are what nothing is read from."""

    def loss(params: Tree, hidden: Any, x: Any, y: Any) -> Any:
        net = Conv("batchnorm-eval" in mistakes, x.dtype)
        ones, zeros = jnp.ones(common.FILTERS, x.dtype), jnp.zeros(common.FILTERS, x.dtype)
        variables = {"params": params, "batch_stats": {"norm": {"mean": zeros, "var": ones}}}
        logits, _ = net.apply(variables, x, mutable=["batch_stats"])
        return cross_entropy(logits, y).mean(), hidden

    return loss


def gru_loss(mistakes: Collection[str], show: Show) -> Callable[..., Any]:
    """A GRU of six dense layers, scanned over time; the hidden state goes on."""
    del mistakes

    def cell(gru: Tree, hidden: Any, x: Any) -> Any:
        reset = jax.nn.sigmoid(dense(gru["ir"], x) + dense(gru["hr"], hidden))
        keep = jax.nn.sigmoid(dense(gru["iz"], x) + dense(gru["hz"], hidden))
        new = jnp.tanh(dense(gru["in"], x) + reset * dense(gru["hn"], hidden))
        return (1 - keep) * new + keep * hidden

    def loss(params: Tree, hidden: Any, x: Any, y: Any) -> Any:
        def step(hidden: Any, x: Any) -> Any:
            hidden = cell(params["gru"], hidden, x)
            return hidden, hidden

        before = jax.lax.stop_gradient(hidden)
        hidden, outputs = jax.lax.scan(step, before, x.swapaxes(0, 1))
        outputs = show("gru", outputs.swapaxes(0, 1), (x, before))
        made = show("", show("output", dense(params["output"], outputs), (outputs,)), (x,))
        return ((made - y) ** 2).sum((1, 2)).mean(), hidden

    return loss


class Transformer(flax.linen.Module):
    """A decoder of one block with a tied head, in flax."""

    mistakes: frozenset[str]
    dtype: Any

    def attend(self, query: Any, key: Any, value: Any, mask: Any = None, **rest: Any) -> Any:
        """Attention, without its scale where that is the mistake.

        flax looks whether `mask` is among the arguments, and hands none where it is not.
        """
        if "attention-scale" in self.mistakes:
            query = query * math.sqrt(query.shape[-1])
        return flax.linen.dot_product_attention(query, key, value, mask=mask, **rest)

    @flax.linen.compact
    def __call__(self, tokens: Any) -> Any:
        """The logits."""
        kind = {"dtype": self.dtype, "param_dtype": self.dtype}
        epsilon = 1e-3 if "layernorm-epsilon" in self.mistakes else 1e-5

        def norm(name: str, x: Any) -> Any:
            # The variance as it is defined, not as E[x²] - E[x]².
            fast = False
            return flax.linen.LayerNorm(epsilon, name=name, use_fast_variance=fast, **kind)(x)

        embedding = flax.linen.Embed(common.VOCABULARY, common.WIDTH, name="embedding", **kind)
        positions = flax.linen.Embed(common.POSITIONS, common.WIDTH, name="positions", **kind)
        x = embedding(tokens) + positions(jnp.arange(tokens.shape[1]))
        attention = flax.linen.MultiHeadDotProductAttention(
            common.HEADS, attention_fn=self.attend, name="attention", **kind
        )
        x = x + attention(norm("norm1", x), mask=flax.linen.make_causal_mask(tokens))
        inner = flax.linen.Dense(common.INNER, name="inner", **kind)(norm("norm2", x))
        inner = dropped(self.mistakes, jax.nn.gelu(inner, approximate="gelu" in self.mistakes))
        x = norm("norm3", x + flax.linen.Dense(common.WIDTH, name="outer", **kind)(inner))
        if "untied" in self.mistakes:
            return flax.linen.Dense(common.VOCABULARY, use_bias=False, name="head", **kind)(x)
        return embedding.attend(x)


def transformer_loss(mistakes: Collection[str]) -> Callable[..., Any]:
    """Cross entropy over the tokens that count."""

    def loss(params: Tree, hidden: Any, x: Any, y: Any) -> Any:
        if "transposed-kernel" in mistakes:
            out = params["attention"]["out"]
            kernel = out["kernel"].reshape(common.WIDTH, common.WIDTH).T
            turned = out | {"kernel": kernel.reshape(out["kernel"].shape)}
            params = params | {"attention": params["attention"] | {"out": turned}}
        net = Transformer(frozenset(mistakes), params["inner"]["kernel"].dtype)
        losses = cross_entropy(net.apply({"params": params}, x), y)
        if "padding-counted" in mistakes:
            return losses.mean(), hidden
        counts = y != common.PADDING
        return (losses * counts).sum() / counts.sum(), hidden

    return loss
