"""Clipping beside a loss scaler: before its scale is taken out of the gradients, and after."""

import pytest

from lockstep import record
from lockstep.trace import compare_traces

torch = pytest.importorskip("torch")

UPDATES, LIMIT = 6, 0.1


def run(folder, *, scale=None, grows=None, unscale=True, limit=LIMIT):
    """Train; grows: every how many updates the scale doubles."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    given = {} if scale is None else {"init_scale": scale, "growth_interval": grows or 1000}
    scaler = torch.amp.GradScaler("cpu", enabled=scale is not None, **given)
    with record.torch(folder, model, optimizer, full=UPDATES):
        for _ in range(UPDATES):
            optimizer.zero_grad()
            loss = (model(torch.randn(8, 5)) - torch.randn(8, 2)).square().mean()
            scaler.scale(loss).backward()
            if unscale:
                scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
            scaler.step(optimizer)
            scaler.update()
    return folder


@pytest.mark.parametrize("grows", [None, 2])
@pytest.mark.parametrize("scaled", [True, False])
def test_a_clip_of_scaled_gradients_is_named(tmp_path, scaled, grows):
    right = run(tmp_path / "right", scale=64.0 if scaled else None, grows=grows)
    port = run(tmp_path / "port", scale=64.0, grows=grows)
    assert compare_traces(right, port).verdict == "same"
    found = compare_traces(right, run(tmp_path / "wrong", scale=64.0, grows=grows, unscale=False))
    assert (found.names, found.left) == (("clip-scaled-grads",), []), found
    assert "clipped to 0.1 while a loss scaler has multiplied them, by 64" in found.findings[0].said


def test_another_limit_is_another_limit(tmp_path):
    right = run(tmp_path / "right", scale=64.0)
    found = compare_traces(right, run(tmp_path / "port", scale=64.0, limit=LIMIT / 32))
    assert found.names[0].startswith("clips to 0.0031")
