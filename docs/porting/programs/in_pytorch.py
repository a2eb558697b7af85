"""SGD, Adam and AdamW in PyTorch, as a port to check."""

import torch
from torch import optim
from torch.nn.utils import get_total_norm

SUPPORTED = (
    *("max_norm", "learning_rates", "decay_bias"),
    *("non_finite", "loss_scale"),
)


def windows(problem):
    k = problem.accumulation_steps
    for _ in range(problem.epochs):
        for i in range(0, len(problem.micro_batches), k):
            yield problem.micro_batches[i : i + k]


def make_optimizer(parameters, problem):
    s = problem.optimizer
    if s.nesterov or s.dampening or s.amsgrad:
        raise NotImplementedError(
            "plain momentum and Adam only"
        )
    # decay: AdamW decouples it, Adam and SGD do not.
    W, b = parameters
    decays = (
        s.weight_decay,
        s.weight_decay * problem.decay_bias,
    )
    groups = [
        {"params": [W], "weight_decay": decays[0]},
        {"params": [b], "weight_decay": decays[1]},
    ]

    if s.name == "sgd":
        return optim.SGD(groups, momentum=s.momentum)
    rules = {"adam": optim.Adam, "adamw": optim.AdamW}
    if s.name not in rules:
        raise NotImplementedError(s.name)
    return rules[s.name](groups, betas=s.betas, eps=s.eps)


def train(problem):
    if not problem.uses_only(*SUPPORTED):
        raise NotImplementedError(SUPPORTED)
    if problem.non_finite == "raise":
        raise NotImplementedError("such windows are skipped")
    W = torch.tensor(problem.W, requires_grad=True)
    b = torch.tensor(problem.b, requires_grad=True)
    parameters = [W, b]
    optimizer = make_optimizer(parameters, problem)
    max_norm, rates = problem.max_norm, problem.learning_rates
    growth, scale = problem.loss_scale, 1.0
    if growth:
        scale = growth.initial
    update = streak = 0
    for window in windows(problem):
        examples = sum(len(x) for x, _ in window)
        # reset: backward() adds to what .grad holds.
        optimizer.zero_grad()

        for x, y in window:
            x, y = torch.tensor(x), torch.tensor(y)
            # forward: recorded; the loss is a window's share.
            error = x @ W + b - y
            loss = error.square().sum() / examples
            # gradient + accumulate: both, into .grad.
            (loss * scale).backward()
        # loss scale: divide before anything looks.
        for p in parameters:
            p.grad /= scale
        norm = get_total_norm([p.grad for p in parameters])
        finite = bool(norm.isfinite())

        if finite:
            if max_norm is not None:
                # clip: clip_grad_norm_ would add 1e-6 to it.
                factor = (max_norm / norm).clamp(max=1.0)
                for p in parameters:
                    p.grad *= factor
            rate = problem.optimizer.learning_rate
            if rates is not None:
                rate = rates[update]
            # schedule: you count updates, you set the rate.
            for group in optimizer.param_groups:
                group["lr"] = rate
            # update: step() changes the tensors in place.
            optimizer.step()

            update, streak = update + 1, streak + 1
            if growth and streak == growth.growth_interval:
                scale, streak = scale * 2, 0
        else:
            scale, streak = scale / 2, 0
        # state: the optimizer keeps it, by parameter.
        kept = [optimizer.state[p] for p in parameters]
        names = kept[0].keys() - {"step"}
        state = {n: [s[n] for s in kept] for n in names}

        state = {
            n: v for n, v in state.items() if v[0] is not None
        }
        yield {
            "W": W.detach().numpy().copy(),
            "b": b.detach().numpy().copy(),
            "state": state,
        }
