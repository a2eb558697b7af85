"""A model of which optimizers of two kinds step a part each: both parts are compared."""

import itertools

import numpy as np
import pytest

from lockstep import record
from lockstep.trace import check_trace, compare_traces

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")

UPDATES, SHAPES = 5, {"inner": (6, 5), "outer": (2, 6)}
NUMBERS = np.random.default_rng(5)
START = {name: NUMBERS.normal(size=shape).astype("float32") / 2 for name, shape in SHAPES.items()}
DATA = NUMBERS.normal(size=(UPDATES, 8, 5)).astype("float32")
RIGHT = {"rate": 0.01, "decay": 0.1, "other_rate": 0.05, "momentum": 0.9}


def run_torch(folder, **wrong):
    """AdamW steps the inner layer, and SGD the outer one."""
    given = RIGHT | wrong
    model = torch.nn.ParameterDict({n: torch.nn.Parameter(torch.tensor(START[n])) for n in START})
    optimizers = [
        torch.optim.AdamW([model["inner"]], given["rate"], weight_decay=given["decay"]),
        torch.optim.SGD([model["outer"]], given["other_rate"], momentum=given["momentum"]),
    ]
    with record.torch(folder, model, *optimizers, full=UPDATES):
        for x in map(torch.tensor, DATA):
            hidden = torch.tanh(x @ model["inner"].T)
            (hidden @ model["outer"].T - 1).square().mean().backward()
            for each in optimizers:
                each.step()
                each.zero_grad()
    return folder


def run_jax(folder, **wrong):
    given = RIGHT | wrong
    parameters = {name: jax.numpy.array(value) for name, value in START.items()}

    def loss(p, x):
        return ((jax.numpy.tanh(x @ p["inner"].T) @ p["outer"].T - 1) ** 2).mean()

    rules = {
        "inner": optax.adamw(given["rate"], weight_decay=given["decay"]),
        "outer": optax.sgd(given["other_rate"], momentum=given["momentum"]),
    }
    recorder = record.jax(folder, full=UPDATES)
    optimizer = recorder.wrap(optax.multi_transform(rules, {name: name for name in START}))
    gradient = recorder.gradient(jax.jit(jax.grad(loss)))
    state = optimizer.init(parameters)
    for x in DATA:
        updates, state = optimizer.update(gradient(parameters, x), state, parameters)
        parameters = optax.apply_updates(parameters, updates)
    recorder.close()
    return folder


RUNS = {"pytorch": run_torch, "jax": run_jax}


@pytest.mark.parametrize(("first", "second"), itertools.product(RUNS, RUNS))
def test_both_parts_are_compared(tmp_path, first, second):
    right = RUNS[first](tmp_path / "right")
    port = RUNS[second](tmp_path / "port")
    found = compare_traces(right, port)
    assert (found.verdict, found.left) == ("same", []), found
    for wrong, name in (
        ({"other_rate": 0.5}, "another learning rate"),
        ({"momentum": 0.5}, "another momentum"),
        ({"rate": 0.03}, "another learning rate"),
        ({"decay": 0.0}, "wd-ignored"),
    ):
        port = RUNS[second](tmp_path / f"{[*wrong]}", **wrong)
        found = compare_traces(right, port)
        assert (found.names, found.left) == ((name,), []), (wrong, found)
    port = RUNS[second](tmp_path / "both", momentum=0.5, rate=0.03)
    found = compare_traces(right, port)
    assert set(found.names) == {"another momentum", "another learning rate"}, found


class Lazy(torch.optim.SGD):
    """SGD that has another momentum than its settings say."""

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for each in group["params"]:
                state = self.state[each]
                state["momentum_buffer"] = 0.5 * state.get("momentum_buffer", 0) + each.grad
                each -= group["lr"] * state["momentum_buffer"]


def test_each_part_of_a_run_alone_is_held_against_its_own_settings(tmp_path, monkeypatch):
    assert check_trace(run_torch(tmp_path / "right")).verdict == "same"
    monkeypatch.setattr(torch.optim, "SGD", Lazy)
    found = check_trace(run_torch(tmp_path / "wrong"))
    assert found.names == ("another momentum",), found
    assert "momentum is 0.5 instead of 0.9" in found.findings[0].said


def test_a_run_of_two_kinds_in_optax_is_held_against_its_settings(tmp_path):
    found = check_trace(run_jax(tmp_path / "a"))
    assert (found.verdict, found.left) == ("same", []), found
