"""A decay beside a rate that changes: times the rate, or by itself."""

import numpy as np
import pytest

from lockstep import record
from lockstep.trace import check_trace, compare_traces

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")

UPDATES, DECAY = 5, 0.02
NUMBERS = np.random.default_rng(8)
START = {
    "w": NUMBERS.normal(size=(4, 5)).astype("float32"),
    "b": NUMBERS.normal(size=5).astype("float32"),
}
DATA = NUMBERS.normal(size=(UPDATES, 8, 4)).astype("float32")
DIRECTIONS = {
    "adam": optax.scale_by_adam,
    "momentum": lambda: optax.trace(0.9),
    "descent": optax.identity,
    "lion": optax.scale_by_lion,
}
RATES = {
    "falls": optax.cosine_decay_schedule(0.05, UPDATES + 1),
    # The first update moves nothing.
    "begins at 0": optax.linear_schedule(0.0, 0.05, UPDATES),
}


def run(folder, direction, rate, where):
    """Train; where: "before" or "behind" the rate stands the decay, or nowhere."""
    scale = optax.scale_by_learning_rate(RATES[rate])
    chain = {
        "before": (optax.add_decayed_weights(DECAY), scale),
        "behind": (scale, optax.add_decayed_weights(-DECAY / 10)),
        "nowhere": (scale,),
    }[where]
    parameters = {name: jax.numpy.array(value) for name, value in START.items()}
    recorder = record.jax(folder, full=UPDATES)
    optimizer = recorder.wrap(optax.chain(DIRECTIONS[direction](), *chain))

    def loss(p, x):
        return ((jax.numpy.tanh(x @ p["w"] + p["b"]) - 0.5) ** 2).mean()

    gradient = recorder.gradient(jax.jit(jax.grad(loss)))
    state = optimizer.init(parameters)
    for x in DATA:
        updates, state = optimizer.update(gradient(parameters, x), state, parameters)
        parameters = optax.apply_updates(parameters, updates)
    recorder.close()
    return folder


def test_the_first_beta_of_lion_is_compared(tmp_path, monkeypatch):
    """It is in no moment."""
    right = run(tmp_path / "right", "lion", "falls", "before")
    monkeypatch.setitem(DIRECTIONS, "lion", lambda: optax.scale_by_lion(b1=0.5))
    found = compare_traces(right, run(tmp_path / "port", "lion", "falls", "before"))
    assert (found.names, found.left) == (("another beta1",), []), found
    assert found.findings[0].said == "beta1 is 0.5 instead of 0.9"


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_decay_that_is_not_times_the_rate_is_told(tmp_path, direction, rate):
    runs = {
        where: run(tmp_path / where, direction, rate, where)
        for where in ("before", "behind", "nowhere")
    }
    for first, second, name in (
        ("before", "behind", "wd-not-times-lr"),
        ("behind", "before", "without wd-not-times-lr"),
        ("nowhere", "behind", "another weight decay"),
        ("behind", "nowhere", "wd-ignored"),
    ):
        found = compare_traces(runs[first], runs[second])
        assert (found.names, found.left) == ((name,), []), (first, second, found)
    assert compare_traces(runs["behind"], runs["behind"]).verdict == "same"
    for each in runs.values():
        found = check_trace(each)
        assert (found.verdict, found.left) == ("same", []), found
