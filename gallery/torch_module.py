"""nn.Linear, a DataLoader, torch.optim, LambdaLR and GradScaler, as PyTorch's own examples."""

import math

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, TensorDataset

SUPPORTED = "max_norm", "learning_rates", "schedule", "decay_bias", "non_finite", "loss_scale"


def make_optimizer(model, s, decay_bias):
    bias = {"params": [model.bias], "weight_decay": s.weight_decay * decay_bias}
    groups, lr, decay = [{"params": [model.weight]}, bias], s.learning_rate, s.weight_decay
    if s.name == "sgd":
        return torch.optim.SGD(groups, lr, s.momentum, s.dampening, decay, s.nesterov)
    rules = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    if s.name not in rules:
        raise NotImplementedError(s.name)
    return rules[s.name](groups, lr, s.betas, s.eps, decay, s.amsgrad)


def factor(update, problem):
    if problem.learning_rates is not None:
        return problem.learning_rates[update] / problem.optimizer.learning_rate
    if (s := problem.schedule) is None:
        return 1.0
    if update < s.warmup:
        return update / s.warmup
    p = min(1, (update - s.warmup) / (s.updates - s.warmup))
    return {"constant": 1.0, "linear": 1 - p, "cosine": (1 + math.cos(math.pi * p)) / 2}[s.decay]


def train(problem):
    scale, k = problem.loss_scale, problem.accumulation_steps
    if not problem.uses_only(*SUPPORTED) or (problem.non_finite != "apply" and not scale):
        raise NotImplementedError("weights, other policies, and skipping without a GradScaler")
    x, y = map(torch.tensor, problem.examples)
    batches = torch.arange(len(x)).split([len(x) for x, _ in problem.micro_batches])
    loader = DataLoader(TensorDataset(x, y), batch_sampler=batches)
    model = nn.Linear(*problem.W.shape, dtype=x.dtype)
    model.load_state_dict({"weight": torch.tensor(problem.W.T), "bias": torch.tensor(problem.b)})
    optimizer = make_optimizer(model, problem.optimizer, problem.decay_bias)
    scheduler = LambdaLR(optimizer, lambda update: factor(update, problem))
    initial, interval = (scale.initial, scale.growth_interval) if scale else (1.0, 1)
    scaler = torch.amp.GradScaler("cpu", initial, growth_interval=interval, enabled=bool(scale))
    for _ in range(problem.epochs):
        for step, (x, y) in enumerate(loader, 1):
            loss = (model(x) - y).square().sum(1).mean()
            scaler.scale(loss / k).backward()
            if step % k == 0 or step == len(loader):
                if problem.max_norm is not None:
                    scaler.unscale_(optimizer)
                    nn.utils.clip_grad_norm_(model.parameters(), problem.max_norm)
                scaler.step(optimizer)
                scaler.update()
                scheduler.step()
                optimizer.zero_grad()
                yield model.weight.detach().numpy().T.copy(), model.bias.detach().numpy().copy()
