"""Hugging Face's Trainer with a loss that divides by `num_items_in_batch`, the window's labels."""

import hf_trainer
from torch.nn.functional import mse_loss


def squared_error(outputs, labels, num_items_in_batch):
    return mse_loss(outputs["logits"], labels, reduction="sum") / num_items_in_batch


def train(problem):
    return hf_trainer.train(problem, compute_loss_func=squared_error)
