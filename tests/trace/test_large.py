"""Models whose tensors have as many numbers as real ones: norms, and what is fused."""

import numpy as np
import pytest

from lockstep import record
from lockstep.trace import compare_traces

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")

WIDTH, UPDATES, LIMIT, RATE = 600, 2, 20.0, 0.01
NUMBERS = np.random.default_rng(5)
PARTS = [NUMBERS.standard_normal((WIDTH, WIDTH)).astype("float32") / 25 for _ in "qkv"]
X = NUMBERS.standard_normal((UPDATES, 8, WIDTH)).astype("float32") ** 3 / 10


def in_pytorch(folder):
    """One layer that is fused: its weight has a million numbers, some of which are equal."""
    layer = torch.nn.Linear(WIDTH, 3 * WIDTH)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.concatenate(PARTS)))
        layer.bias.zero_()
    optimizer = torch.optim.SGD(layer.parameters(), RATE)
    recorder = record.torch(folder, layer, optimizer)
    for x in X:
        q, k, v = layer(torch.from_numpy(x)).chunk(3, 1)
        (torch.tanh(q * k) * v).square().sum().backward()
        torch.nn.utils.clip_grad_norm_(layer.parameters(), LIMIT)
        optimizer.step()
        optimizer.zero_grad()
    recorder.close()


def in_jax(folder, limit=LIMIT, v_of="v"):
    """The same in three layers; v_of: of which layer v is."""
    recorder = record.jax(folder)

    def loss(parameters, x):
        def layer(name):
            return x @ parameters[name]["kernel"] + parameters[name]["bias"]

        return jax.numpy.square(jax.numpy.tanh(layer("q") * layer("k")) * layer(v_of)).sum()

    parameters = {
        name: {"kernel": jax.numpy.array(part.T), "bias": jax.numpy.zeros(WIDTH)}
        for name, part in zip("qkv", PARTS, strict=True)
    }
    optimizer = recorder.wrap(optax.chain(optax.clip_by_global_norm(limit), optax.sgd(RATE)))
    gradient, state = recorder.gradient(jax.jit(jax.grad(loss))), optimizer.init(parameters)
    for x in X:
        changes, state = optimizer.update(gradient(parameters, x), state, parameters)
        parameters = optax.apply_updates(parameters, changes)
    recorder.close()


def test_a_fused_layer_of_a_million_numbers_is_compared_and_clipped_alike(tmp_path):
    """PyTorch's norm of a million numbers, of which few are large, is further off than of a few."""
    assert len(np.unique(PARTS)) < 0.995 * np.size(PARTS)
    in_pytorch(tmp_path / "a")
    in_jax(tmp_path / "b")
    for runs in (("a", "b"), ("b", "a")):
        found = compare_traces(*(tmp_path / run for run in runs))
        assert found.verdict == "same", found
        assert len(found.matching.matches) == (2 if runs[0] == "a" else 6)
        assert [len(pair.rest) for pair in found.pairs] == [len(found.matching.matches)] * UPDATES
    in_jax(tmp_path / "looser", limit=2 * LIMIT)
    assert compare_traces(tmp_path / "a", tmp_path / "looser").names == ("clips to 40",)
    in_jax(tmp_path / "other", v_of="k")
    assert "another gradient" in compare_traces(tmp_path / "a", tmp_path / "other").names
