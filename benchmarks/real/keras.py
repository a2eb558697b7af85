"""The real runs in Keras: its layers, names and layouts, in a loop of one's own or in `fit`.

Keras' rules are not PyTorch's: Adam's epsilon stands elsewhere, SGD's momentum has the rate in it.
The small subclasses here take PyTorch's update; `stock=True` takes Keras' own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

import lockstep.record
from benchmarks.real import common
from benchmarks.real.common import Array, Recipe

# What is no matrix in PyTorch's layout: biases, though Keras gives some of them two axes.
NO_MATRIX = ("bias", "gamma", "beta")


def run(
    folder: Any,
    model: str,
    dtype: str,
    accumulation_steps: int,
    mistakes: Collection[str] = (),
    updates: int = common.UPDATES,
    record: bool = True,
    full: int = 100,
    activations: bool = False,
    fit: bool = False,
    mode: str = "eager",
    stock: bool = False,
) -> dict[str, Array]:
    """Train a model and return its parameters.

    fit: through `model.fit`, and not in a loop of one's own. mode: "eager", "graph", or "jit".
    """
    with floats(dtype):
        network = build(model, dtype, mistakes)
        optimizer = make_optimizer(common.RECIPES[model], accumulation_steps, mistakes, stock)
        plan = Plan(model, dtype, accumulation_steps, updates, mistakes)
        train = fitted if fit else looped
        options = {"full": full, "activations": activations}
        train(network, optimizer, plan, mode, folder if record else None, options)
        return {variable.path: variable.numpy() for variable in network.trainable_variables}


@contextmanager
def floats(dtype: str) -> Iterator[None]:
    """Keras' default floats, for a while."""
    before, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_floatx(before)
        keras.config.set_dtype_policy(policy)


# The models.


def build(model: str, dtype: str, mistakes: Collection[str]) -> keras.Model:
    """Return a model with its initial values."""
    network = {"mlp": MLP, "conv": Conv, "gru": Recurrent, "transformer": Transformer}[model](
        mistakes
    )
    network(example(model, dtype))
    values = converted(model, common.initial(model, dtype), mistakes)
    for variable in network.trainable_variables:
        variable.assign(values[variable.path.split("/", 1)[1]])
    if model == "gru":
        network.gru.reset_state()
    return network


def example(model: str, dtype: str) -> Array:
    """Inputs of a model's, to build it with."""
    shape = {
        "mlp": (1, common.FEATURES),
        "conv": (1, common.SIDE, common.SIDE, common.CHANNELS),
        "gru": (4, common.LENGTH, common.INPUTS),
        "transformer": (1, common.POSITIONS - 1),
    }[model]
    return np.zeros(shape, "int64" if model == "transformer" else dtype)


def converted(model: str, values: dict[str, Array], mistakes: Collection[str]) -> dict[str, Array]:
    """Initial values under Keras' names, in its layouts."""
    transposed = "transposed-kernel" in mistakes
    found = {}
    for name, value in values.items():
        layer, _, kind = name.rpartition(".")
        if layer == "gru":
            continue
        wrong = transposed and name in ("middle.weight", "attention.output.weight")
        if layer in ("embedding", "positions"):
            found[f"{layer}/embeddings"] = value
        elif layer.startswith("norm"):
            found[f"{layer}/{'gamma' if kind == 'weight' else 'beta'}"] = value
        elif value.ndim == 4:
            found[f"{layer}/kernel"] = value.transpose(2, 3, 1, 0)
        elif layer.startswith("attention."):
            part = layer.split(".")[1].replace("output", "attention_output")
            kind = "kernel" if kind == "weight" else "bias"
            found[f"attention/{part}/{kind}"] = heads(
                part, value if wrong or value.ndim == 1 else value.T
            )
        else:
            kind = "kernel" if kind == "weight" else "bias"
            found[f"{layer}/{kind}"] = value if wrong or value.ndim == 1 else value.T
    if model == "gru":
        found |= gates(values)
    if "untied" in mistakes and "embedding/embeddings" in found:
        found["head/kernel"] = found["embedding/embeddings"].T
    return found


def heads(part: str, value: Array) -> Array:
    """A kernel (in, out), or a bias, with an axis of its own for the heads, as Keras has it."""
    width = common.WIDTH // common.HEADS
    if part == "attention_output":
        return value if value.ndim == 1 else value.reshape(common.HEADS, width, common.WIDTH)
    return value.reshape(*value.shape[:-1], common.HEADS, width)


def gates(values: dict[str, Array]) -> dict[str, Array]:
    """The GRU's values: Keras has the gates in the order z, r, n, and both biases in one."""

    def turned(name: str) -> Array:
        r, z, n = np.split(values[f"gru.{name}_l0"], 3)
        return np.concatenate([z, r, n])

    return {
        "gru/gru_cell/kernel": turned("weight_ih").T,
        "gru/gru_cell/recurrent_kernel": turned("weight_hh").T,
        "gru/gru_cell/bias": np.stack([turned("bias_ih"), turned("bias_hh")]),
    }


class Model(keras.Model):
    """What the models have in common."""

    def __init__(self, name: str, mistakes: Collection[str]) -> None:
        """Know what is wrong."""
        super().__init__(name=name)
        self.mistakes = frozenset(mistakes)
        self.dropout = layers.Dropout(0.1, seed=0, name="dropout")

    def gelu(self, values: Any) -> Any:
        """GELU, exact."""
        if "gelu" in self.mistakes:
            return keras.activations.gelu(values, approximate=True)
        # Keras' own has the root of 2 in float32, which float64 shows.
        return 0.5 * values * (1 + ops.erf(values / np.sqrt(2)))

    def dropped(self, values: Any) -> Any:
        """What dropout leaves, where somebody left it on."""
        return self.dropout(values, training=True) if "dropout-on" in self.mistakes else values


class MLP(Model):
    """Three dense layers."""

    def __init__(self, mistakes: Collection[str]) -> None:
        """Make the layers."""
        super().__init__("mlp", mistakes)
        self.first = layers.Dense(common.HIDDEN, name="hidden")
        self.second = layers.Dense(common.HIDDEN, name="middle")
        self.last = layers.Dense(common.CLASSES, name="output")

    def call(self, x: Any, training: bool = False) -> Any:
        """Return logits."""
        x = self.dropped(self.gelu(self.first(x)))
        return self.last(self.gelu(self.second(x)))


class Conv(Model):
    """A convolution, batch normalisation and a dense layer."""

    def __init__(self, mistakes: Collection[str]) -> None:
        """Make the layers."""
        super().__init__("conv", mistakes)
        self.convolution = layers.Conv2D(common.FILTERS, 3, padding="same", name="conv")
        self.norm = layers.BatchNormalization(epsilon=1e-5, name="norm")
        self.last = layers.Dense(common.CLASSES, name="output")

    def call(self, x: Any, training: bool = False) -> Any:
        """Return logits."""
        training = training and "batchnorm-eval" not in self.mistakes
        x = ops.relu(self.norm(self.convolution(x), training=training))
        return self.last(ops.mean(x, axis=(1, 2)))


class Recurrent(Model):
    """A GRU whose state goes on, and a dense layer."""

    def __init__(self, mistakes: Collection[str]) -> None:
        """Make the layers."""
        super().__init__("recurrent", mistakes)
        self.gru = layers.GRU(
            common.UNITS, reset_after=True, stateful=True, return_sequences=True, name="gru"
        )
        self.last = layers.Dense(common.OUTPUTS, name="output")

    def call(self, x: Any, training: bool = False) -> Any:
        """Return outputs at each time."""
        return self.last(self.gru(x))


class Transformer(Model):
    """A decoder of one block with a tied head."""

    def __init__(self, mistakes: Collection[str]) -> None:
        """Make the layers."""
        super().__init__("transformer", mistakes)
        epsilon = 1e-3 if "layernorm-epsilon" in mistakes else 1e-5
        self.embedding = layers.Embedding(common.VOCABULARY, common.WIDTH, name="embedding")
        self.positions = layers.Embedding(common.POSITIONS, common.WIDTH, name="positions")
        self.norms = [
            layers.LayerNormalization(epsilon=epsilon, name=f"norm{index}") for index in (1, 2, 3)
        ]
        self.attention = layers.MultiHeadAttention(
            common.HEADS, common.WIDTH // common.HEADS, name="attention"
        )
        if "attention-scale" in mistakes:
            self.attention._inverse_sqrt_key_dim = 1.0
        self.inner = layers.Dense(common.INNER, name="inner")
        self.outer = layers.Dense(common.WIDTH, name="outer")
        if "untied" in mistakes:
            self.head = layers.Dense(common.VOCABULARY, use_bias=False, name="head")

    def call(self, x: Any, training: bool = False) -> Any:
        """Return logits at each time."""
        x = self.embedding(x) + self.positions(ops.arange(ops.shape(x)[1]))
        normed = self.norms[0](x)
        x = x + self.attention(normed, normed, use_causal_mask=True)
        x = x + self.outer(self.dropped(self.gelu(self.inner(self.norms[1](x)))))
        x = self.norms[2](x)
        if "untied" in self.mistakes:
            return self.head(x)
        return ops.matmul(x, ops.transpose(self.embedding.embeddings))


# The optimizers.


class Torch(keras.optimizers.Optimizer):
    """What PyTorch's rules have in common here: coupled decay, an accumulator that may stay."""

    coupled_decay = 0.0
    never_emptied = False

    def coupled(self, gradient: Any, variable: Any) -> Any:
        """The gradient of the loss and of the decay."""
        if isinstance(gradient, tf.IndexedSlices):
            gradient = tf.convert_to_tensor(gradient)
        if not self.coupled_decay or not self._use_weight_decay(variable):
            return gradient
        return gradient + number(self.coupled_decay, variable) * variable

    def _backend_reset_gradient_accumulators(self) -> None:
        if not self.never_emptied:
            super()._backend_reset_gradient_accumulators()

    def get_config(self) -> dict[str, Any]:
        """Keras' settings, and the decay that is not Keras'."""
        return super().get_config() | {"coupled_decay": self.coupled_decay}


def number(value: float, variable: Any) -> Any:
    """A number in a variable's type: Keras makes float32 of a plain one first."""
    return ops.convert_to_tensor(value, dtype=variable.dtype)


class SGD(Torch, keras.optimizers.SGD):
    """PyTorch's: the buffer holds gradients, without the rate."""

    dampening = 0.0

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Descend along the buffer."""
        buffer = self.momentums[self._get_variable_index(variable)]
        gradient = self.coupled(gradient, variable) * number(1 - self.dampening, variable)
        self.assign(buffer, number(self.momentum, variable) * buffer + gradient)
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * buffer)


class Adam(Torch, keras.optimizers.Adam):
    """PyTorch's: epsilon is added to the root of what is corrected."""

    corrects = True

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Scale by the root of a mean square."""
        index = self._get_variable_index(variable)
        momentum, velocity = self._momentums[index], self._velocities[index]
        count = ops.cast(self.iterations + 1, variable.dtype)
        beta1, beta2 = (number(beta, variable) for beta in (self.beta_1, self.beta_2))
        gradient = self.coupled(gradient, variable)
        self.assign(momentum, beta1 * momentum + (1 - beta1) * gradient)
        self.assign(velocity, beta2 * velocity + (1 - beta2) * ops.square(gradient))
        rate, square = ops.cast(learning_rate, variable.dtype), velocity + 0
        if self.corrects:
            rate = rate / (1 - beta1**count)
            square = square / (1 - beta2**count)
        self.assign_sub(
            variable, rate * momentum / (ops.sqrt(square) + number(self.epsilon, variable))
        )


def make_optimizer(
    recipe: Recipe, accumulation_steps: int, mistakes: Collection[str], stock: bool
) -> keras.optimizers.Optimizer:
    """Return a recipe's optimizer; the rate is set update by update."""
    decay = 0.0 if "wd-ignored" in mistakes else recipe.weight_decay
    coupled = recipe.optimizer != "adamw" or "l2-vs-decoupled" in mistakes
    steps = accumulation_steps - ("skipped-micro-batch" in mistakes)
    settings = clipping(recipe, mistakes) | {
        "learning_rate": 0.0,
        "gradient_accumulation_steps": steps if steps > 1 else None,
        # A plain number would be float32 before it is cast.
        "weight_decay": None if coupled and not stock else np.float64(decay),
    }
    if recipe.optimizer == "sgd":
        rule: Any = keras.optimizers.SGD if stock else SGD
        optimizer = rule(momentum=recipe.momentum, **settings)
        optimizer.dampening = recipe.momentum if "momentum-ema" in mistakes else 0.0
    else:
        betas = (0.9, 0.999) if "other-betas" in mistakes else recipe.betas
        epsilon = 1e-3 if "eps-default" in mistakes else recipe.eps
        rule = keras.optimizers.Adam if stock else Adam
        optimizer = rule(beta_1=betas[0], beta_2=betas[1], epsilon=epsilon, **settings)
        optimizer.corrects = "missing-bias-correction" not in mistakes
    optimizer.coupled_decay = decay if coupled else 0.0
    optimizer.never_emptied = "missing-zero-grad" in mistakes
    if recipe.optimizer == "adamw" and "wd-on-bias" not in mistakes:
        # What decays is the same, wherever the decay goes.
        optimizer.exclude_from_weight_decay(var_names=NO_MATRIX)
    return optimizer


def clipping(recipe: Recipe, mistakes: Collection[str]) -> dict[str, float]:
    """Which of Keras' three ways to clip."""
    if recipe.max_norm is None or "clip-ignored" in mistakes:
        return {}
    names = {"clip-by-value": "clipvalue", "clip-per-tensor": "clipnorm"}
    for mistake, name in names.items():
        if mistake in mistakes:
            return {name: recipe.max_norm}
    return {"global_clipnorm": recipe.max_norm}


# The data, and how it is weighed.


class Plan:
    """What is trained on, in windows of (x, y, weights), and at which rates."""

    def __init__(
        self,
        model: str,
        dtype: str,
        accumulation_steps: int,
        updates: int,
        mistakes: Collection[str],
    ) -> None:
        """Draw the windows."""
        self.model, self.dtype, self.mistakes = model, dtype, frozenset(mistakes)
        self.steps = accumulation_steps
        windows = common.windows(model, dtype, accumulation_steps, updates)
        self.windows = common.again(windows, mistakes)

    def rate(self, update: int) -> float:
        """The rate of an update."""
        rates = common.RECIPES[self.model].rates
        if "sched-off-by-one" in self.mistakes:
            update += 1
        if "sched-per-microstep" in self.mistakes:
            update *= self.steps
        return rates[update] * (10 if "rate-times-10" in self.mistakes else 1)

    def batches(self, window: list[tuple[Array, Array]]) -> Iterator[tuple[Array, Array, Array]]:
        """A window's micro-batches, each with the weight of each example's loss.

        Keras divides what it accumulates by its steps, which the weights have to make good.
        """
        window = [(x, self.targets(y)) for x, y in window]
        total = sum(self.counted(y) for _, y in window)
        if "skipped-micro-batch" in self.mistakes and len(window) > 1:
            window = window[:-1]
        for x, y in window:
            weight = len(window) / total
            if "mean-of-means" in self.mistakes:
                weight = 1 / self.counted(y)
            if "no-divide" in self.mistakes:
                weight = len(window) / self.counted(y)
            whole = np.ones(y.shape[: 2 if self.model == "transformer" else 1], self.dtype)
            if self.model == "transformer" and "padding-counted" not in self.mistakes:
                whole *= y != common.PADDING
            yield x, y, whole * weight

    def targets(self, y: Array) -> Array:
        """The targets, one further where somebody shifted them once too often."""
        if "label-shift" in self.mistakes:
            y = np.roll(y, -1, axis=1)
            y[:, -1] = common.PADDING
        return y

    def counted(self, y: Array) -> int:
        """What a loss is divided by."""
        return y.size if "padding-counted" in self.mistakes else common.counted(self.model, y)


class Squares(keras.losses.Loss):
    """The squared error, summed over time and outputs."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return a loss an example."""
        return ops.sum(ops.square(y_pred - y_true), axis=(1, 2))


def make_loss(model: str) -> keras.losses.Loss:
    """The model's loss, a weighed sum over a micro-batch."""
    if model == "gru":
        return Squares(reduction="sum")
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")


# The loops.


def looped(
    network: Any, optimizer: Any, plan: Plan, mode: str, folder: Any, options: dict[str, Any]
) -> None:
    """Train in a loop of one's own."""
    loss_function = make_loss(plan.model)
    optimizer.build(network.trainable_variables)
    if folder:
        recorder = lockstep.record.keras(folder, network, optimizer=optimizer, **options)

    def step(x: Any, y: Any, weights: Any) -> None:
        with tf.GradientTape() as tape:
            loss = loss_function(y, network(x, training=True), sample_weight=weights)
            scaled = optimizer.scale_loss(loss)
        variables = network.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(scaled, variables), variables, strict=True))

    run_step: Callable[..., Any] = step
    if mode != "eager":
        run_step = tf.function(step, jit_compile=mode == "jit")
    for update, window in enumerate(plan.windows):
        optimizer.learning_rate = plan.rate(update)
        if "state-dropped" in plan.mistakes and update == common.THIRD + 1:
            emptied(optimizer)
        for index, batch in enumerate(plan.batches(window)):
            if "cleared-in-window" in plan.mistakes and (update, index) == (common.THIRD, 2):
                optimizer._backend_reset_gradient_accumulators()
            x, y, weights = map(tf.constant, batch)
            if folder:
                recorder.data(x, y)
            run_step(x, y, weights)
            if folder and mode != "eager":
                recorder.update()


def emptied(optimizer: Any) -> None:
    """Let an optimizer begin anew."""
    for variable in optimizer.variables:
        if "learning_rate" not in variable.path:
            variable.assign(ops.zeros_like(variable))


def fitted(
    network: Any, optimizer: Any, plan: Plan, mode: str, folder: Any, options: dict[str, Any]
) -> None:
    """Train through `fit`, which goes by micro-batches."""
    network.compile(
        optimizer=optimizer,
        loss=make_loss(plan.model),
        run_eagerly=mode == "eager",
        jit_compile=mode == "jit",
    )
    batches = [list(plan.batches(window)) for window in plan.windows]
    steps = len(batches[0])

    def rate(batch: int, logs: Any) -> None:
        optimizer.learning_rate = plan.rate(batch // steps)

    callbacks: list[Any] = [keras.callbacks.LambdaCallback(on_train_batch_begin=rate)]
    if folder:
        callbacks.append(lockstep.record.keras(folder, network, **options))
    data = tf.data.Dataset.from_generator(
        lambda: (batch for window in batches for batch in window),
        output_signature=signature(batches[0][0]),
    )
    network.fit(data, epochs=1, callbacks=callbacks, verbose=0)


def signature(batch: tuple[Array, ...]) -> tuple[tf.TensorSpec, ...]:
    """The shapes of micro-batches, which have as many examples as they like."""
    return tuple(tf.TensorSpec((None, *array.shape[1:]), array.dtype) for array in batch)
