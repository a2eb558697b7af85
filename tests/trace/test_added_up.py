"""optax.apply_every, which adds up the updates of micro-batches, and not their gradients."""

import jax
import numpy as np
import optax
import pytest

import lockstep.record
from lockstep.trace import check_trace, compare_traces

K, UPDATES = 2, 3


def run(folder, optimizer):
    """Train a matrix on micro-batches."""
    numbers = np.random.default_rng(0)
    w = jax.numpy.array(numbers.standard_normal((4, 3)).astype(np.float32))
    recorder = lockstep.record.jax(folder, full=K * UPDATES)
    optimizer = recorder.wrap(optimizer)
    loss = jax.value_and_grad(lambda w, x: (jax.numpy.tanh(x @ w) ** 2).mean())
    gradient = recorder.gradient(loss)
    state = optimizer.init(w)
    for x in numbers.standard_normal((K * UPDATES, 8, 4)).astype(np.float32):
        updates, state = optimizer.update(gradient(w, x)[1], state, w)
        w = optax.apply_updates(w, updates)
    recorder.close()
    return folder


@pytest.mark.parametrize("rule", [optax.sgd(0.1, momentum=0.9), optax.adamw(0.01)])
def test_it_is_named_and_nothing_behind_it(tmp_path, rule):
    right = run(tmp_path / "a", optax.MultiSteps(rule, K))
    port = run(
        tmp_path / "b", optax.chain(optax.clip_by_global_norm(0.1), rule, optax.apply_every(K))
    )
    for runs, less in (((right, port), ""), ((port, right), "without ")):
        found = compare_traces(*runs)
        assert (found.names, found.left) == ((f"{less}apply-every",), []), found
        assert "optax.MultiSteps(optimizer, 2)" in found.findings[0].said
    alone = check_trace(port)
    assert alone.verdict == "same"
    assert any("optax.apply_every, is not known here" in each for each in alone.notes)


def test_two_runs_that_do_so_are_the_same(tmp_path):
    rule = optax.chain(optax.sgd(0.1, momentum=0.9), optax.apply_every(K))
    first, second = run(tmp_path / "a", rule), run(tmp_path / "b", rule)
    assert compare_traces(first, second).verdict == "same"


def test_one_that_adds_up_one_takes_each(tmp_path):
    rule = optax.sgd(0.1, momentum=0.9)
    first = run(tmp_path / "a", rule)
    second = run(tmp_path / "b", optax.chain(rule, optax.apply_every(1)))
    assert compare_traces(first, second).verdict == "same"
