"""A parameter that is a single number, of which one weight of anything explains all."""

import torch
from torch import nn

import lockstep.record
from lockstep.trace import compare_traces


class Scaled(nn.Module):
    """Logits that a learned temperature scales."""

    def __init__(self, stopped):
        super().__init__()
        self.net = nn.Linear(6, 4)
        self.scale, self.stopped = nn.Parameter(torch.tensor(1.5)), stopped

    def forward(self, x):
        scale = self.scale.detach() + 0 * self.scale if self.stopped else self.scale
        return scale.exp() * self.net(x)


def run(folder, stopped=False):
    torch.manual_seed(0)
    model = Scaled(stopped)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    with lockstep.record.torch(folder, model, optimizer):
        for x in torch.randn(4, 8, 6):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), torch.arange(8) % 4).backward()
            optimizer.step()
    return folder


def test_a_single_number_that_gets_no_gradient_is_no_decay_in_the_loss(tmp_path):
    right, wrong = run(tmp_path / "right"), run(tmp_path / "wrong", stopped=True)
    for runs in ((right, wrong), (wrong, right)):
        found = compare_traces(*runs)
        assert [each.tensors for each in found.findings if each.stage == "model"] == [("scale",)]
