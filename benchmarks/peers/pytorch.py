"""Loops in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.peers import BETAS, BY_HAND, EPS, FAST, PRODUCTS, RATE, READABLE, Contestant
from pytorch_impl import compiler, data, fast, optimizers, padding, training
from pytorch_impl.progress import Progress

ADAM: dict[str, Any] = {"lr": RATE, "betas": BETAS, "eps": EPS}


def by_hand(problem: Any) -> Contestant:
    """The loop without a helper."""
    W, b = (torch.tensor(p, requires_grad=True) for p in (problem.W, problem.b))
    epoch = [(torch.tensor(x), torch.tensor(y)) for x, y in problem.micro_batches]
    examples = sum(len(x) for x, _ in epoch)
    optimizer = torch.optim.Adam([W, b], **ADAM)

    def window() -> Any:
        total = 0.0
        optimizer.zero_grad()
        for x, y in epoch:
            loss = (x @ W + b - y).square().sum() / examples
            loss.backward()
            total += loss.detach()
        optimizer.step()
        return total

    return Contestant(window, lambda: data.snapshot((W, b)))


def readable(problem: Any) -> Contestant:
    """The repository's plain loop."""
    parameters, epoch = data.load(problem)
    optimizer = optimizers.make_optimizer(parameters, problem)
    return Contestant(
        lambda: training.train_window(parameters, optimizer, epoch),
        lambda: data.snapshot(parameters),
    )


def compiled(problem: Any) -> Contestant:
    """The repository's fast form; raises RuntimeError without a C++ compiler."""
    if not compiler.can_compile():
        raise RuntimeError("benchmarks: PyTorch's fast form needs a C++ compiler")
    parameters, epoch = data.load_weighted(problem)
    optimizer, program = optimizers.make_optimizer(parameters, problem), fast.compiled(problem)
    compiler.fuse(optimizer)
    examples = max(len(x) for x, _ in problem.micro_batches)
    stacked = [padding.stack(arrays, len(epoch), examples) for arrays in zip(*epoch)]
    progress = Progress(problem)

    def rewind() -> None:
        progress.updates = 0

    return Contestant(
        lambda: fast.update_or_skip(parameters, optimizer, program, stacked, progress),
        lambda: data.snapshot(parameters),
        rewind,
    )


def module(problem: Any) -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """What the libraries wrap: a layer; and tensors, for no data loader is measured."""
    model = nn.Linear(*problem.W.shape)
    model.load_state_dict({"weight": torch.tensor(problem.W.T), "bias": torch.tensor(problem.b)})
    return model, [(torch.tensor(x), torch.tensor(y)) for x, y in problem.micro_batches]


def shown(model: Any) -> Callable[[], list[Any]]:
    """W and b of a layer, copied."""
    return lambda: [
        model.weight.T.numpy(force=True).copy(),
        model.bias.numpy(force=True).copy(),
    ]


def accelerate(problem: Any) -> Contestant:
    """Accelerate's `accumulate`, as in gallery/accelerate_loop.py."""
    from accelerate import Accelerator

    model, epoch = module(problem)
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(), gradient_accumulation_steps=problem.accumulation_steps
    )
    optimizer = torch.optim.Adam(model.parameters(), **ADAM)
    wrapped, optimizer = accelerator.prepare(model, optimizer)

    def window() -> Any:
        total = 0.0
        for x, y in epoch:
            with accelerator.accumulate(wrapped):
                loss = (wrapped(x) - y).square().sum(1).mean()
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
            total += loss.detach()
        return total

    return Contestant(window, shown(model))


def fabric(problem: Any) -> Contestant:
    """Fabric's `no_backward_sync`, as in gallery/fabric_loop.py."""
    from lightning.fabric import Fabric

    model, epoch = module(problem)
    lightning = Fabric(accelerator="cuda" if torch.cuda.is_available() else "cpu", devices=1)
    wrapped, optimizer = lightning.setup(model, torch.optim.Adam(model.parameters(), **ADAM))
    k = problem.accumulation_steps

    def window() -> Any:
        total = 0.0
        for iteration, (x, y) in enumerate(epoch, 1):
            with lightning.no_backward_sync(wrapped, enabled=iteration != k):
                loss = (wrapped(x) - y).square().sum(1).mean()
                lightning.backward(loss / k)
            total += loss.detach()
        optimizer.step()
        optimizer.zero_grad()
        return total

    return Contestant(window, shown(model))


def products(problem: Any) -> Contestant:
    """x W and the transposed x times an error, for each micro-batch, into memory that is there."""
    W = torch.tensor(problem.W)
    epoch = [(torch.tensor(x), torch.tensor(y)) for x, y in problem.micro_batches]
    prediction, gradient = torch.empty_like(epoch[0][1]), torch.empty_like(W)

    def window() -> None:
        for x, y in epoch:
            torch.mm(x, W, out=prediction)
            torch.mm(x.T, y, out=gradient)

    return Contestant(window)


CONTESTANTS = {
    BY_HAND: by_hand,
    READABLE: readable,
    FAST: compiled,
    "Accelerate": accelerate,
    "Fabric": fabric,
    PRODUCTS: products,
}
