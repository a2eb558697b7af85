"""Two biases that are added in one run, where the other one has their sum."""

import pytest
import torch
from torch import nn

import lockstep.record
from lockstep.trace import compare_traces
from lockstep.trace.added import NAME
from lockstep.views.trace import html

UPDATES, WIDTH, UNITS = 3, 4, 5


class OneBias(nn.Module):
    """A recurrent cell as `nn.RNNCell`, with one bias."""

    def __init__(self, cell):
        super().__init__()
        self.weight_ih = nn.Parameter(cell.weight_ih.detach().clone())
        self.weight_hh = nn.Parameter(cell.weight_hh.detach().clone())
        self.bias = nn.Parameter((cell.bias_ih + cell.bias_hh).detach())

    def forward(self, x, hidden):
        return torch.tanh(x @ self.weight_ih.T + hidden @ self.weight_hh.T + self.bias)


def run(folder, *, one=False, begin="drawn", frozen=False, decay=0.0):
    """Train a cell over four times."""
    torch.manual_seed(0)
    cell = nn.RNNCell(WIDTH, UNITS, dtype=torch.float64)
    if begin == "zeros" or frozen:
        nn.init.zeros_(cell.bias_hh)
    if begin == "zeros":
        nn.init.zeros_(cell.bias_ih)
    cell.bias_hh.requires_grad_(not frozen)
    model = OneBias(cell) if one else cell
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1, weight_decay=decay)
    with lockstep.record.torch(folder, model, optimizer):
        for _ in range(UPDATES):
            hidden = torch.zeros(3, UNITS, dtype=torch.float64)
            for x in torch.randn(4, 3, WIDTH, dtype=torch.float64):
                hidden = model(x, hidden)
            optimizer.zero_grad()
            hidden.square().mean().backward()
            optimizer.step()
    return folder


@pytest.mark.parametrize("begin", ["drawn", "zeros"])
def test_two_biases_that_both_move_are_told_and_nothing_else(tmp_path, begin):
    two = run(tmp_path / "two", begin=begin)
    one = run(tmp_path / "one", one=True, begin=begin)
    found, back = compare_traces(two, one), compare_traces(one, two)
    for each, tensors in ((found, {"bias"}), (back, {"bias_ih", "bias_hh"})):
        assert (each.names, each.left, set(each.findings[0].tensors)) == ((NAME,), [], tensors)
        assert "their sum twice as far" in each.findings[0].said
        page = html(each)
        assert "no counterpart" not in page
        assert (page.count("<tr>"), page.count('<tr class="differs">')) == (1 + 2, 1)


def test_one_of_two_biases_that_never_moves_is_no_difference(tmp_path):
    two, one = run(tmp_path / "two", frozen=True), run(tmp_path / "one", one=True, frozen=True)
    for runs in ((two, one), (one, two)):
        assert compare_traces(*runs).verdict == "same"


def test_all_tensors_that_could_be_compared_are_all_that_decay(tmp_path):
    """What has no counterpart, as a bias that is added, decays in one run alone."""
    decaying = run(tmp_path / "a", decay=0.1)
    found = compare_traces(decaying, run(tmp_path / "b", one=True))
    assert found.names == ("wd-ignored", NAME)
