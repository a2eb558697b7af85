"""Real runs in PyTorch: the models of common.py as a person would write them, and recorded."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import lockstep.record
from benchmarks.real import common

Array = np.ndarray[Any, Any]


class Perceptron(nn.Module):
    """The MLP."""

    def __init__(self, mistakes: Collection[str]) -> None:
        """Make the layers."""
        super().__init__()
        self.hidden = nn.Linear(common.FEATURES, common.HIDDEN)
        self.middle = nn.Linear(common.HIDDEN, common.HIDDEN)
        self.output = nn.Linear(common.HIDDEN, common.CLASSES)
        self.activation = nn.GELU(approximate="tanh" if "gelu" in mistakes else "none")
        self.dropout = nn.Dropout(0.1 if "dropout-on" in mistakes else 0.0)
        self.transposed = "transposed-kernel" in mistakes

    def forward(self, x: Any) -> Any:
        """The logits of a batch."""
        x = self.dropout(self.activation(self.hidden(x)))
        if self.transposed:
            x = functional.linear(x, self.middle.weight.T, self.middle.bias)
        else:
            x = self.middle(x)
        return self.output(self.activation(x))


class Convolutional(nn.Module):
    """The convolutional net."""

    def __init__(self, mistakes: Collection[str]) -> None:
        """Make the layers."""
        super().__init__()
        self.conv = nn.Conv2d(common.CHANNELS, common.FILTERS, 3, padding="same")
        self.norm = nn.BatchNorm2d(common.FILTERS)
        self.output = nn.Linear(common.FILTERS, common.CLASSES)
        self.frozen = "batchnorm-eval" in mistakes

    def train(self, mode: bool = True) -> Any:
        """Train; the mistake leaves the batch's statistics out."""
        super().train(mode)
        if self.frozen:
            self.norm.eval()
        return self

    def forward(self, x: Any) -> Any:
        """The logits of a batch of (channels, height, width)."""
        x = functional.relu(self.norm(self.conv(x)))
        return self.output(x.mean((2, 3)))


class Recurrent(nn.Module):
    """The GRU, whose state goes on."""

    def __init__(self, mistakes: Collection[str]) -> None:
        """Make the layers."""
        super().__init__()
        self.gru = nn.GRU(common.INPUTS, common.UNITS, batch_first=True)
        self.output = nn.Linear(common.UNITS, common.OUTPUTS)
        self.state: Any = None

    def forward(self, x: Any) -> Any:
        """The outputs at each time."""
        hidden, state = self.gru(x, self.state)
        self.state = state.detach()
        return self.output(hidden)


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, mistakes: Collection[str]) -> None:
        """Make the layers."""
        super().__init__()
        self.query = nn.Linear(common.WIDTH, common.WIDTH)
        self.key = nn.Linear(common.WIDTH, common.WIDTH)
        self.value = nn.Linear(common.WIDTH, common.WIDTH)
        self.output = nn.Linear(common.WIDTH, common.WIDTH)
        self.scale = 1.0 if "attention-scale" in mistakes else None
        self.transposed = "transposed-kernel" in mistakes

    def forward(self, x: Any) -> Any:
        """What each time takes of those before it."""

        def split(x: Any) -> Any:
            return x.unflatten(-1, (common.HEADS, -1)).transpose(1, 2)

        query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
        x = functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=self.scale
        )
        x = x.transpose(1, 2).flatten(2)
        if self.transposed:
            return functional.linear(x, self.output.weight.T, self.output.bias)
        return self.output(x)


class Transformer(nn.Module):
    """The decoder of one block, whose head is its embedding."""

    def __init__(self, mistakes: Collection[str]) -> None:
        """Make the layers."""
        super().__init__()
        width, epsilon = common.WIDTH, 1e-3 if "layernorm-epsilon" in mistakes else 1e-5
        self.embedding = nn.Embedding(common.VOCABULARY, width)
        self.positions = nn.Embedding(common.POSITIONS, width)
        self.norm1 = nn.LayerNorm(width, epsilon)
        self.attention = Attention(mistakes)
        self.norm2 = nn.LayerNorm(width, epsilon)
        self.inner = nn.Linear(width, common.INNER)
        self.activation = nn.GELU(approximate="tanh" if "gelu" in mistakes else "none")
        self.dropout = nn.Dropout(0.1 if "dropout-on" in mistakes else 0.0)
        self.outer = nn.Linear(common.INNER, width)
        self.norm3 = nn.LayerNorm(width, epsilon)
        self.head = nn.Linear(width, common.VOCABULARY, bias=False)
        if "untied" not in mistakes:
            self.head.weight = self.embedding.weight

    def forward(self, tokens: Any) -> Any:
        """The logits of the next token at each time."""
        x = self.embedding(tokens) + self.positions(torch.arange(tokens.shape[1]))
        x = x + self.attention(self.norm1(x))
        x = x + self.outer(self.dropout(self.activation(self.inner(self.norm2(x)))))
        return self.head(self.norm3(x))


MODELS: dict[str, Any] = {
    "mlp": Perceptron, "conv": Convolutional, "gru": Recurrent, "transformer": Transformer,
}  # fmt: skip


class Momentum(torch.optim.Optimizer):
    """A person's own SGD, whose momentum is an average of the gradients."""

    def __init__(self, params: Any, lr: float, momentum: float, weight_decay: float) -> None:
        """Keep the settings."""
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One update."""
        for group in self.param_groups:
            momentum = group["momentum"]
            for param in group["params"]:
                gradient = param.grad + group["weight_decay"] * param
                state = self.state[param]
                buffer = state.setdefault("momentum_buffer", torch.zeros_like(param))
                buffer.mul_(momentum).add_(gradient, alpha=1 - momentum)
                param.sub_(group["lr"] * buffer)


class Uncorrected(torch.optim.Optimizer):
    """A person's own Adam, which has forgotten that its averages begin at zero."""

    def __init__(
        self, params: Any, lr: float, betas: Any, eps: float, weight_decay: float, coupled: bool
    ) -> None:
        """Keep the settings."""
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, settings | {"coupled": coupled})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One update."""
        for group in self.param_groups:
            first, second = group["betas"]
            for param in group["params"]:
                gradient = param.grad
                if group["coupled"]:
                    gradient = gradient + group["weight_decay"] * param
                else:
                    param.mul_(1 - group["lr"] * group["weight_decay"])
                state = self.state[param]
                mean = state.setdefault("exp_avg", torch.zeros_like(param))
                square = state.setdefault("exp_avg_sq", torch.zeros_like(param))
                mean.mul_(first).add_(gradient, alpha=1 - first)
                square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
                param.sub_(group["lr"] * mean / (square.sqrt() + group["eps"]))


def build(name: str, dtype: str, mistakes: Collection[str]) -> Any:
    """A model with the initial values that all frameworks begin at."""
    torch.manual_seed(0)
    model = MODELS[name](mistakes).to(getattr(torch, dtype))
    values = {key: torch.from_numpy(value) for key, value in common.initial(name, dtype).items()}
    if name == "transformer":
        values["head.weight"] = values["embedding.weight"].clone()
    missing, unexpected = model.load_state_dict(values, strict=False)
    assert not unexpected
    assert all(key.startswith("norm.") for key in missing)
    return model.train()


def optimizer_of(model: Any, recipe: common.Recipe, mistakes: Collection[str], fused: bool) -> Any:
    """The optimizer that a recipe names, with what is planted in it."""
    decay = 0.0 if "wd-ignored" in mistakes else recipe.weight_decay
    betas = (0.9, 0.999) if "other-betas" in mistakes else recipe.betas
    eps = 1e-3 if "eps-default" in mistakes else recipe.eps
    parameters = list(model.parameters())
    if recipe.optimizer == "sgd":
        if "momentum-ema" in mistakes:
            return Momentum(parameters, recipe.peak, recipe.momentum, decay)
        momentum = recipe.momentum
        return torch.optim.SGD(
            parameters, recipe.peak, momentum=momentum, weight_decay=decay, fused=fused
        )
    groups = [{"params": parameters, "weight_decay": decay}]
    if recipe.optimizer == "adamw" and "wd-on-bias" not in mistakes:
        groups = [
            {"params": [one for one in parameters if one.ndim >= 2], "weight_decay": decay},
            {"params": [one for one in parameters if one.ndim < 2], "weight_decay": 0.0},
        ]
    coupled = recipe.optimizer == "adam" or "l2-vs-decoupled" in mistakes
    if "missing-bias-correction" in mistakes:
        return Uncorrected(groups, recipe.peak, betas, eps, decay, coupled)
    library = torch.optim.Adam if coupled else torch.optim.AdamW
    return library(groups, lr=recipe.peak, betas=betas, eps=eps, fused=fused)


def targets(name: str, y: Array, mistakes: Collection[str]) -> Array:
    """The targets as the run has them."""
    if name == "transformer" and "label-shift" in mistakes:
        y = np.roll(y, -1, axis=1)
        y[:, -1] = common.PADDING
    return y


def count(name: str, y: Array, mistakes: Collection[str]) -> int:
    """What a micro-batch's loss is divided by for its mean."""
    return y.size if "padding-counted" in mistakes else common.counted(name, y)


def loss_of(name: str, output: Any, y: Any, mistakes: Collection[str]) -> Any:
    """A micro-batch's loss, summed over its examples or tokens."""
    if name == "gru":
        return ((output - y) ** 2).sum()
    if name == "transformer":
        ignored = -100 if "padding-counted" in mistakes else common.PADDING
        return functional.cross_entropy(
            output.flatten(0, 1), y.flatten(), ignore_index=ignored, reduction="sum"
        )
    return functional.cross_entropy(output, y, reduction="sum")


def divided(loss: Any, own: int, total: int, steps: int, mistakes: Collection[str]) -> Any:
    """A micro-batch's part of the window's loss."""
    if "no-divide" in mistakes:
        return loss / own
    if "mean-of-means" in mistakes:
        return loss / own / steps
    return loss / total


def clip(parameters: Iterable[Any], max_norm: float | None, mistakes: Collection[str]) -> None:
    """Clip the window's gradient."""
    if max_norm is None or "clip-ignored" in mistakes:
        return
    if "clip-by-value" in mistakes:
        nn.utils.clip_grad_value_(parameters, max_norm)
    elif "clip-per-tensor" in mistakes:
        for parameter in parameters:
            nn.utils.clip_grad_norm_([parameter], max_norm)
    else:
        nn.utils.clip_grad_norm_(parameters, max_norm)


def rate(rates: list[float], update: int, steps: int, mistakes: Collection[str]) -> float:
    """The rate of an update, which counts from 0."""
    index = update + ("sched-off-by-one" in mistakes)
    if "sched-per-microstep" in mistakes:
        index = update * steps
    return rates[min(index, len(rates) - 1)] * (10 if "rate-times-10" in mistakes else 1)


def run(
    folder: str | os.PathLike[str],
    model: str,
    dtype: str,
    accumulation_steps: int,
    mistakes: Collection[str] = (),
    updates: int = common.UPDATES,
    record: bool = True,
    full: int = 100,
    activations: bool = False,
    backend: str | None = None,
    fused: bool = False,
    begin: int = 0,
) -> dict[str, Array]:
    """Train, and record it from an update on, counted from 0; the parameters at the end.

    backend: what torch.compile uses; without one, nothing is compiled.
    """
    recipe, net = common.RECIPES[model], build(model, dtype, mistakes)
    optimizer = optimizer_of(net, recipe, mistakes, fused)
    called = torch.compile(net, backend=backend) if backend else net
    resumed = "resumed-in-window" in mistakes
    begin = common.THIRD if resumed else begin
    windows = common.windows(model, dtype, accumulation_steps, updates)
    for update, window in enumerate(common.again(windows, mistakes)):
        if record and update == begin:
            recorder = lockstep.record.torch(
                folder, called, optimizer, full=full, activations=activations
            )
        if "state-dropped" in mistakes and update == common.THIRD + 1:
            optimizer.state.clear()
        for group in optimizer.param_groups:
            group["lr"] = rate(recipe.rates, update, accumulation_steps, mistakes)
        window = [(x, targets(model, y, mistakes)) for x, y in window]
        total = sum(count(model, y, mistakes) for _, y in window)
        kept = window[:-1] if "skipped-micro-batch" in mistakes else window
        if resumed and update == begin:
            kept = kept[2:]
        for index, (x, y) in enumerate(kept):
            if "cleared-in-window" in mistakes and (update, index) == (common.THIRD, 2):
                optimizer.zero_grad()
            if model == "conv":
                x = x.transpose(0, 3, 1, 2)
            output = called(torch.from_numpy(np.ascontiguousarray(x)))
            loss = loss_of(model, output, torch.from_numpy(np.ascontiguousarray(y)), mistakes)
            own = count(model, y, mistakes)
            divided(loss, own, total, accumulation_steps, mistakes).backward()
        clip(list(net.parameters()), recipe.max_norm, mistakes)
        if "step-left-out" not in mistakes or update != common.THIRD:
            optimizer.step()
        if "missing-zero-grad" not in mistakes:
            optimizer.zero_grad()
    if record:
        recorder.close()
    return {name: value.detach().numpy().copy() for name, value in net.named_parameters()}
