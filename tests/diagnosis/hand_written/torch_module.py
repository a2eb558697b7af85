"""Linear regression as an nn.Module, fed by a DataLoader, trained by torch.optim."""

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Batches(Dataset):
    """Ready-made batches, so the loader must not collate them again."""

    def __init__(self, pairs):
        self.pairs = [(torch.tensor(x), torch.tensor(y)) for x, y in pairs]

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, index):
        return self.pairs[index]


class Regressor(nn.Module):
    def __init__(self, W, b):
        super().__init__()
        W, b = torch.tensor(W), torch.tensor(b)
        self.linear = nn.Linear(*W.shape, dtype=W.dtype)
        # nn.Linear keeps its weight as (out, in)
        self.linear.load_state_dict({"weight": W.T, "bias": b})

    def forward(self, x):
        return self.linear(x)

    def export(self):
        weight, bias = self.linear.weight.detach(), self.linear.bias.detach()
        return weight.T.numpy().copy(), bias.numpy().copy()


def build_optimizer(model, cfg):
    common = {"lr": cfg.learning_rate, "weight_decay": cfg.weight_decay}
    if cfg.name == "sgd":
        return torch.optim.SGD(
            model.parameters(),
            momentum=cfg.momentum,
            dampening=cfg.dampening,
            nesterov=cfg.nesterov,
            **common,
        )
    if cfg.name in ("adam", "adamw"):
        cls = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[cfg.name]
        return cls(model.parameters(), betas=cfg.betas, eps=cfg.eps, amsgrad=cfg.amsgrad, **common)
    raise NotImplementedError(f"no optimizer {cfg.name}")


def clip_(parameters, max_norm):
    # torch.nn.utils.clip_grad_norm_ adds 1e-6 to the norm
    grads = [p.grad for p in parameters]
    norm = torch.linalg.vector_norm(torch.cat([g.flatten() for g in grads]))
    if norm > max_norm:
        for g in grads:
            g.mul_(max_norm / norm)


def train(problem):
    if not problem.uses_only("learning_rates", "max_norm"):
        raise NotImplementedError("the settings of a recipe")
    model = Regressor(problem.W, problem.b)
    optimizer = build_optimizer(model, problem.optimizer)
    loader = DataLoader(Batches(problem.micro_batches), batch_size=None, shuffle=False)
    criterion = nn.MSELoss(reduction="sum")
    global_step = 0
    for _ in range(problem.epochs):
        seen = 0
        for i, (x, y) in enumerate(loader, start=1):
            criterion(model(x), y).backward()
            seen += len(x)
            if i % problem.accumulation_steps != 0 and i != len(loader):
                continue
            for p in model.parameters():
                p.grad /= seen
            if problem.max_norm is not None:
                clip_(list(model.parameters()), problem.max_norm)
            if problem.learning_rates is not None:
                for group in optimizer.param_groups:
                    group["lr"] = problem.learning_rates[global_step]
            optimizer.step()
            optimizer.zero_grad()
            global_step, seen = global_step + 1, 0
            yield model.export()
