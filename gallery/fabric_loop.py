"""Lightning Fabric: a plain loop, and the loop of its guide to accumulation."""

import torch
from lightning.fabric import Fabric
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def set_up(problem):
    s = problem.optimizer
    if not problem.uses_only("max_norm", "learning_rates") or s.name != "sgd":
        raise NotImplementedError("SGD, clipping and learning rates alone")
    x, y = map(torch.tensor, problem.examples)
    batches = torch.arange(len(x)).split([len(x) for x, _ in problem.micro_batches])
    model = nn.Linear(*problem.W.shape, dtype=x.dtype)
    model.load_state_dict({"weight": torch.tensor(problem.W.T), "bias": torch.tensor(problem.b)})
    settings = s.learning_rate, s.momentum, s.dampening, s.weight_decay, s.nesterov
    optimizer = torch.optim.SGD(model.parameters(), *settings)
    fabric = Fabric(accelerator="cpu", devices=1)
    loader = DataLoader(TensorDataset(x, y), batch_sampler=batches)
    return fabric, *fabric.setup(model, optimizer), fabric.setup_dataloaders(loader)


def apply(fabric, model, optimizer, problem, update):
    if problem.max_norm is not None:
        fabric.clip_gradients(model, optimizer, max_norm=problem.max_norm)
    if problem.learning_rates is not None:
        for group in optimizer.param_groups:
            group["lr"] = problem.learning_rates[update]
    optimizer.step()
    optimizer.zero_grad()
    return model.weight.detach().T.numpy().copy(), model.bias.detach().numpy().copy()


def train(problem):
    fabric, model, optimizer, loader = set_up(problem)
    k, updates = problem.accumulation_steps, 0
    for _ in range(problem.epochs):
        for iteration, (x, y) in enumerate(loader, 1):
            is_accumulating = iteration % k != 0 and iteration != len(loader)
            with fabric.no_backward_sync(model, enabled=is_accumulating):
                loss = (model(x) - y).square().sum(1).mean()
                fabric.backward(loss / k)
            if not is_accumulating:
                yield apply(fabric, model, optimizer, problem, updates)
                updates += 1


def as_documented(problem):
    fabric, model, optimizer, loader = set_up(problem)
    updates = 0
    for _ in range(problem.epochs):
        for iteration, (x, y) in enumerate(loader):
            is_accumulating = iteration % problem.accumulation_steps != 0
            with fabric.no_backward_sync(model, enabled=is_accumulating):
                loss = (model(x) - y).square().sum(1).mean()
                fabric.backward(loss)
            if not is_accumulating:
                yield apply(fabric, model, optimizer, problem, updates)
                updates += 1
