"""Windows that a loop throws away by hand, as a loss scaler does, since a gradient is no number."""

import itertools

import pytest

from lockstep import record
from lockstep.trace import check_trace, compare_traces, read

torch = pytest.importorskip("torch")

UPDATES, WRONG = 6, 3


def run(folder, how, k, *, number=float("inf"), zero="first", rate=0.01):
    """Train; the last micro-batch of a window has a loss that is no number."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0, enabled=how == "scaler")
    with record.torch(folder, model, optimizer, full=UPDATES, activations=True):
        for window in range(UPDATES):
            if zero == "first":
                optimizer.zero_grad()
            for part in range(k):
                loss = (model(torch.randn(4, 5)) - torch.randn(4, 2)).square().mean() / k
                if (window, part) == (WRONG, k - 1):
                    loss = loss * number
                scaler.scale(loss).backward()
            if how == "scaler":
                scaler.step(optimizer)
                scaler.update()
            elif all(each.grad.isfinite().all() for each in model.parameters()):
                optimizer.step()
            if zero == "last":
                optimizer.zero_grad()
    return folder


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("number", [float("inf"), float("nan")], ids=str)
def test_what_is_left_out_by_hand_is_what_a_scaler_leaves_out(tmp_path, k, number):
    scaler = run(tmp_path / "scaler", "scaler", k, number=number)
    first = run(tmp_path / "first", "hand", k, number=number)
    last = run(tmp_path / "last", "hand", k, number=number, zero="last")
    for runs in itertools.permutations((scaler, first, last), 2):
        found = compare_traces(*runs)
        assert (found.verdict, found.left) == ("same", []), found
        # Each micro-batch that enters an update, and none that does not.
        assert len(found.pairs) == k * (UPDATES - 1)
    assert check_trace(first).verdict == "same"
    update = read(first).finite().updates[WRONG]
    assert (update.micro_batches, update.facts["skipped"], update.thrown) == (k, 1, k)


def test_what_is_wrong_beside_it_is_named(tmp_path):
    first = run(tmp_path / "first", "scaler", 2)
    second = run(tmp_path / "second", "hand", 2, rate=0.03)
    assert compare_traces(first, second).names == ("another learning rate",)
    whole = run(tmp_path / "whole", "hand", 2, number=1.0)
    for runs, who in (
        ((whole, first), "it left out a"),
        ((first, whole), "the first run left out a"),
    ):
        found = compare_traces(*runs)
        assert found.names == ("windows left out",)
        assert f"before update 4 {who} window, as a loss scaler does" in found.findings[0].said
