"""A clip of some tensors alone, as that of one of two optimizers."""

import itertools

import numpy as np
import pytest

from lockstep import record
from lockstep.trace import check_trace, compare_traces

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")

UPDATES, LIMIT, RATE = 5, 0.02, 0.01
SHAPES = {"a": (6, 5), "b": (6,), "c": (2, 6), "d": (2,)}
ACTOR = ("a", "b")
NUMBERS = np.random.default_rng(4)
START = {n: (NUMBERS.normal(size=shape) / 2).astype("float32") for n, shape in SHAPES.items()}
DATA = NUMBERS.normal(size=(UPDATES, 8, 5)).astype("float32")


def run_torch(folder, clipped=ACTOR):
    model = torch.nn.ParameterDict(
        {n: torch.nn.Parameter(torch.tensor(v)) for n, v in START.items()}
    )
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    with record.torch(folder, model, optimizer, full=UPDATES):
        for x in map(torch.tensor, DATA):
            optimizer.zero_grad()
            hidden = torch.tanh(x @ model["a"].T + model["b"])
            (hidden @ model["c"].T + model["d"] - 1).square().mean().backward()
            if clipped:
                torch.nn.utils.clip_grad_norm_([model[name] for name in clipped], LIMIT)
            optimizer.step()
    return folder


def run_jax(folder, clipped=ACTOR):
    def loss(p, x):
        return ((jax.numpy.tanh(x @ p["a"].T + p["b"]) @ p["c"].T + p["d"] - 1) ** 2).mean()

    clip = optax.clip_by_global_norm(LIMIT)
    mask = {name: name in clipped for name in START}
    recorder = record.jax(folder, full=UPDATES)
    optimizer = recorder.wrap(optax.chain(optax.masked(clip, mask), optax.adam(RATE)))
    gradient = recorder.gradient(jax.jit(jax.grad(loss)))
    parameters = {name: jax.numpy.array(value) for name, value in START.items()}
    state = optimizer.init(parameters)
    for x in DATA:
        updates, state = optimizer.update(gradient(parameters, x), state, parameters)
        parameters = optax.apply_updates(parameters, updates)
    recorder.close()
    return folder


RUNS = {"pytorch": run_torch, "jax": run_jax}


@pytest.mark.parametrize(("first", "second"), itertools.product(RUNS, RUNS))
def test_what_is_clipped_alone_is_told_from_all_and_from_none(tmp_path, first, second):
    right = RUNS[first](tmp_path / "right")
    for clipped, name in (
        (ACTOR, None),
        ((), "clip-ignored"),
        (tuple(SHAPES), "without clip-in-parts"),
    ):
        found = compare_traces(right, RUNS[second](tmp_path / f"{len(clipped)}", clipped))
        real = tuple(each.name for each in found.findings if not each.policy)
        assert (real, found.left) == ((name,) if name else (), []), found
    whole = RUNS[first](tmp_path / "whole", tuple(SHAPES))
    found = compare_traces(whole, RUNS[second](tmp_path / "part"))
    assert (found.names, found.left) == (("clip-in-parts",), []), found
    assert "some tensors alone are clipped to 0.02: a, b" in found.findings[0].said
    assert check_trace(right).verdict == "same"
