"""Two networks in one recorder, each stepped by an optimizer of its own, which sees both losses."""

import pytest
import torch
from torch import nn

import lockstep.record
from lockstep.trace import check_trace, compare_traces

UPDATES = 4
critical = nn.functional.binary_cross_entropy_with_logits


def run(folder, *, zeroed=True, beta=0.9, left_out=False):
    """Train a generator and its critic in turns; the generator's loss goes through the critic.

    zeroed: whether the critic's gradients are; beta: of its optimizer; left_out: whether a
    parameter of it is in no optimizer, which nothing empties then.
    """
    torch.manual_seed(0)
    nets = nn.ModuleDict({
        "makes": nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 4)),
        "judges": nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)),
    })  # fmt: skip
    judged = [*nets["judges"].parameters()][1 if left_out else 0 :]
    makes = torch.optim.Adam(nets["makes"].parameters(), 1e-2)
    judges = torch.optim.Adam(judged, 2e-2, betas=(beta, 0.999))
    with lockstep.record.torch(folder, nets, makes, judges):
        for z, real in zip(torch.randn(UPDATES, 8, 3), torch.randn(UPDATES, 8, 4), strict=True):
            made = nets["makes"](z)
            if zeroed:
                judges.zero_grad()
            logits = nets["judges"](torch.cat([real, made.detach()]))
            critical(logits, torch.ones(16, 1).index_fill(0, torch.arange(8, 16), 0.0)).backward()
            judges.step()
            makes.zero_grad()
            critical(nets["judges"](made), torch.ones(8, 1)).backward()
            makes.step()
    return folder


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    return run(tmp_path_factory.mktemp("right") / "run")


def test_what_the_other_loss_leaves_is_emptied_before_it_counts(right, tmp_path):
    assert check_trace(right).verdict == "same"
    found = compare_traces(right, run(tmp_path / "again"))
    # Half of the updates are of the generator's 52 numbers, and half of the critic's 37.
    assert (found.verdict, found.compared) == ("same", UPDATES * (52 + 37))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"zeroed": False}, "missing-zero-grad"),
        ({"beta": 0.5}, "another beta1"),
        ({"left_out": True}, "params-not-in-optimizer"),
    ],
)
def test_what_one_optimizer_does_otherwise_has_its_name(right, tmp_path, options, name):
    wrong = run(tmp_path / "wrong", **options)
    found = compare_traces(right, wrong)
    assert (found.names, found.left) == ((name,), [])
    if name == "missing-zero-grad":
        assert check_trace(wrong).names == (name,)
        assert "2 of the 2 micro-batches since update 1 enter update 3" in found.findings[0].said
