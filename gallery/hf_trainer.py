"""Hugging Face's Trainer, set by TrainingArguments alone; the model returns its mean loss."""

import tempfile

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments

SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


class Regression(nn.Linear):
    def forward(self, x, labels=None):
        logits = super().forward(x)
        loss = None if labels is None else (logits - labels).square().sum(1).mean()
        return {"loss": loss, "logits": logits}


class Recorder(TrainerCallback):
    def __init__(self):
        self.updates = []

    def on_step_end(self, args, state, control, model, **kwargs):
        W, b = model.weight.detach().T, model.bias.detach()
        self.updates.append((W.numpy().copy(), b.numpy().copy()))


class BatchedTrainer(Trainer):
    def get_train_dataloader(self):
        return DataLoader(self.train_dataset, batch_size=None)


def train(problem, **settings):
    s, schedule, recorder = problem.optimizer, problem.schedule, Recorder()
    plain = problem.uses_only("max_norm", "schedule", "decay_bias")
    longer = schedule and schedule.updates < problem.updates  # the Trainer ends with its schedule
    if not plain or longer or s.name not in ("sgd", "adamw") or s.amsgrad:
        raise NotImplementedError("SGD, AdamW, clipping and schedules alone")
    momentum = f"momentum={s.momentum},dampening={s.dampening},nesterov={s.nesterov}"
    adam = {"adam_beta1": s.betas[0], "adam_beta2": s.betas[1], "adam_epsilon": s.eps}
    arguments = TrainingArguments(
        tempfile.gettempdir(),  # nothing is saved
        max_steps=(schedule or problem).updates,
        gradient_accumulation_steps=problem.accumulation_steps,
        learning_rate=s.learning_rate,
        lr_scheduler_type=SCHEDULES[schedule.decay if schedule else "constant"],
        warmup_steps=schedule.warmup if schedule else 0,
        weight_decay=s.weight_decay,
        max_grad_norm=problem.max_norm or 0.0,
        **({"optim": "sgd", "optim_args": momentum} if s.name == "sgd" else adam),
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
    )
    model = Regression(*problem.W.shape, dtype=getattr(torch, problem.dtype))
    model.load_state_dict({"weight": torch.tensor(problem.W.T), "bias": torch.tensor(problem.b)})
    data = [{"x": torch.tensor(x), "labels": torch.tensor(y)} for x, y in problem.micro_batches]
    BatchedTrainer(model, arguments, train_dataset=data, callbacks=[recorder], **settings).train()
    yield from recorder.updates[: problem.updates]
