"""Accelerate: `accumulate` decides when the wrapped optimizer and scheduler really step."""

import torch
from accelerate import Accelerator
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, TensorDataset


def make_optimizer(parameters, s):
    if s.name == "sgd":
        settings = s.momentum, s.dampening, s.weight_decay, s.nesterov
        return torch.optim.SGD(parameters, s.learning_rate, *settings)
    if s.name == "adamw":
        settings = s.learning_rate, s.betas, s.eps, s.weight_decay, s.amsgrad
        return torch.optim.AdamW(parameters, *settings)
    raise NotImplementedError(s.name)


def train(problem):
    if not problem.uses_only("max_norm", "learning_rates"):
        raise NotImplementedError("clipping and learning rates alone")
    x, y = map(torch.tensor, problem.examples)
    batches = torch.arange(len(x)).split([len(x) for x, _ in problem.micro_batches])
    loader = DataLoader(TensorDataset(x, y), batch_sampler=batches)
    model = nn.Linear(*problem.W.shape, dtype=x.dtype)
    model.load_state_dict({"weight": torch.tensor(problem.W.T), "bias": torch.tensor(problem.b)})
    optimizer = make_optimizer(model.parameters(), problem.optimizer)
    rates, peak = problem.learning_rates, problem.optimizer.learning_rate
    scheduler = LambdaLR(optimizer, lambda update: rates[update] / peak if rates else 1.0)

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=problem.accumulation_steps)
    model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)
    for _ in range(problem.epochs):
        for x, y in loader:
            with accelerator.accumulate(model):
                loss = (model(x) - y).square().sum(1).mean()
                accelerator.backward(loss)
                if accelerator.sync_gradients and problem.max_norm is not None:
                    accelerator.clip_grad_norm_(model.parameters(), problem.max_norm)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients:
                W, b = model.weight.detach().T, model.bias.detach()
                yield W.numpy().copy(), b.numpy().copy()
