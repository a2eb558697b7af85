"""A parameter that is a single number, of which one weight of anything explains all."""

import numpy as np
import torch
from torch import nn

import lockstep.record
from lockstep.trace import compare_traces
from lockstep.trace.added import added
from lockstep.trace.by_value import left
from lockstep.trace.forward import without_zeros
from lockstep.trace.steps import Step


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


def test_a_tensor_without_axes_is_looked_at_as_others_are():
    one, none = np.float64(2.0), np.float64(0.0)
    kept = {"square_avg": np.float64(0.4)}
    step = Step(1, 0, "scale", one, one, one, None, {"square_avg": none}, kept, "float32")
    shown = left(step, "rmsprop", 0.0)
    assert [each.shape for each in shown] == [(1,)] * 3
    assert np.isclose(shown.size[0], np.sqrt(0.4))
    assert without_zeros(np.array(3.0)) == 3.0
    scalars = {"net.a": np.array(1.0), "net.b": np.array(1.0)}
    assert not added(scalars, [*scalars], {"c": np.array(2.0)}, ["c"], (), {})


def embed(folder, rows):
    """Train an embedding, of which the rows above 8 pad its vocabulary."""
    torch.manual_seed(0)
    table = torch.randn(8, 5)
    model = nn.Sequential(nn.Embedding(rows, 5), nn.Linear(5, 2))
    model[0].weight.data = torch.cat([table, torch.randn(rows - 8, 5)])
    torch.manual_seed(1)
    for parameter in model[1].parameters():
        nn.init.normal_(parameter)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with lockstep.record.torch(folder, model, optimizer):
        for tokens in torch.randint(0, 8, (3, 6)):
            optimizer.zero_grad()
            model(tokens).square().mean().backward()
            optimizer.step()
    return folder


def test_rows_that_pad_a_vocabulary_and_never_move_are_no_difference(tmp_path):
    found = compare_traces(embed(tmp_path / "a", 8), embed(tmp_path / "b", 12))
    assert len(found.matching.free["0.weight"]) == 20
    assert (found.verdict, found.left) == ("same", [])
