"""Momentum and betas that a schedule changes, as PyTorch's OneCycleLR does."""

import pytest
import torch
from torch import nn

import lockstep.record
from lockstep.trace import check_trace, compare_traces

UPDATES, MOST, LEAST = 6, 0.95, 0.85
RULES = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=MOST),
    "beta1": lambda p: torch.optim.AdamW(p, lr=0.01, betas=(MOST, 0.999)),
}


def run(folder, name, *, cycled=True, dtype=torch.float32):
    """Train with a rate that goes up and down, and a momentum that goes the other way."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)
    optimizer = RULES[name](model.parameters())
    recorder = lockstep.record.torch(folder, model, optimizer, full=UPDATES)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.01, total_steps=UPDATES + 1, cycle_momentum=cycled,
        base_momentum=LEAST, max_momentum=MOST,
    )  # fmt: skip
    with recorder:
        for _ in range(UPDATES):
            optimizer.zero_grad()
            model(torch.randn(8, 4, dtype=dtype)).square().mean().backward()
            optimizer.step()
            schedule.step()
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", RULES)
def test_a_momentum_that_is_cycled_in_one_run_alone_is_told(tmp_path, name, dtype):
    cycled = run(tmp_path / "a", name, dtype=dtype)
    constant = run(tmp_path / "b", name, cycled=False, dtype=dtype)
    for runs, words in (
        ((cycled, constant), "0.95 instead of 0.85203 in update 2, 0.95 instead"),
        ((constant, cycled), "0.85203 instead of 0.95 in update 2, 0.8581"),
    ):
        found = compare_traces(*runs)
        assert (found.names, found.left) == ((f"another {name}",), []), found
        [finding] = found.findings
        assert words in finding.said


@pytest.mark.parametrize("name", RULES)
def test_a_momentum_that_is_cycled_in_both_is_no_difference(tmp_path, name):
    runs = run(tmp_path / "a", name), run(tmp_path / "b", name)
    assert compare_traces(*runs).verdict == check_trace(runs[0]).verdict == "same"
