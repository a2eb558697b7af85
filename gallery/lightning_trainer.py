"""Lightning's Trainer: a LightningModule, and two arguments that do the rest."""

import lightning
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, TensorDataset


class Regression(lightning.LightningModule):
    def __init__(self, W, b, settings, rates):
        super().__init__()
        self.linear = nn.Linear(*W.shape, dtype=W.dtype)
        self.linear.load_state_dict({"weight": W.T, "bias": b})
        self.settings, self.rates = settings, rates

    def training_step(self, batch, batch_idx):
        x, y = batch
        return (self.linear(x) - y).square().sum(1).mean()

    def configure_optimizers(self):
        s, lr = self.settings, self.settings.learning_rate
        if s.name == "sgd":
            settings = s.momentum, s.dampening, s.weight_decay, s.nesterov
            optimizer = torch.optim.SGD(self.parameters(), lr, *settings)
        else:
            settings = s.betas, s.eps, s.weight_decay, s.amsgrad
            optimizer = torch.optim.AdamW(self.parameters(), lr, *settings)
        scheduler = LambdaLR(optimizer, lambda u: self.rates[u] / lr if self.rates else 1.0)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


class Recorder(lightning.Callback):
    def __init__(self):
        self.updates = []

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx):
        if trainer.global_step > len(self.updates):
            W, b = model.linear.weight.detach().T, model.linear.bias.detach()
            self.updates.append((W.numpy().copy(), b.numpy().copy()))


def train(problem):
    name = problem.optimizer.name
    if not problem.uses_only("max_norm", "learning_rates") or name not in ("sgd", "adamw"):
        raise NotImplementedError("SGD, AdamW, clipping and learning rates alone")
    x, y = map(torch.tensor, problem.examples)
    batches = torch.arange(len(x)).split([len(x) for x, _ in problem.micro_batches])
    recorder, W, b = Recorder(), torch.tensor(problem.W), torch.tensor(problem.b)
    trainer = lightning.Trainer(
        accelerator="cpu",
        accumulate_grad_batches=problem.accumulation_steps,
        gradient_clip_val=problem.max_norm,
        max_epochs=problem.epochs,
        barebones=True,
        callbacks=recorder,
    )
    loader = DataLoader(TensorDataset(x, y), batch_sampler=batches)
    trainer.fit(Regression(W, b, problem.optimizer, problem.learning_rates), loader)
    yield from recorder.updates
