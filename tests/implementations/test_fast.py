"""The fast form takes the same update as the readable one, in one compilation a run.

PyTorch runs its eager form here; its compiled one takes minutes, and is marked slow.
"""

import dataclasses
import functools
import shutil

import numpy as np
import pytest
from conftest import exact_with_partial_window

from lockstep.diagnosis import check
from lockstep.frameworks import FRAMEWORKS
from lockstep.optimizers.variants import VARIANTS, on_iris
from lockstep.oracle import loop, rounding
from lockstep.oracle.compare import compare_bits, compare_bounds
from lockstep.problem import (
    LossScale,
    Optimizer,
    Problem,
    Schedule,
    hadamard,
    iris_recipe,
    iris_sgd,
    split,
)
from lockstep.workers.pool import WorkerError, importing, train_in_all

FAST = {name: f"{name}_impl.fast" for name in FRAMEWORKS}
# Says in `counted` how many programs its framework has compiled since the run began.
COUNTED = {
    "pytorch": """
from unittest import mock
from pytorch_impl import fast

def train(problem):
    with mock.patch.object(fast, "can_compile", lambda: False):
        for W, b, state in fast.train(problem):
            assert not state.pop("compiled")
            yield W, b, state
""",
    "tensorflow": """
from unittest import mock
import tensorflow as tf
from tensorflow_impl import fast

def train(problem):
    functions, function = [], tf.function

    def kept(*arguments, **options):
        functions.append(function(*arguments, **options))
        return functions[-1]

    shapes = set()
    padded = fast.padded_windows

    def seen(*arguments):
        for window in padded(*arguments):
            shapes.add(tuple(tuple(each.shape) for each in window))
            yield window

    # XLA compiles a trace for each shape that it is called with.
    with mock.patch.object(tf, "function", kept), mock.patch.object(fast, "padded_windows", seen):
        for W, b, state in fast.train(problem):
            (only,) = functions
            counted = only.experimental_get_tracing_count() * len(shapes)
            yield W, b, state | {"counted": counted}
""",
    "jax": """
from jax_impl import fast

def train(problem):
    fast.train_window.clear_cache()
    for W, b, state in fast.train(problem):
        yield W, b, state | {"counted": fast.train_window._cache_size()}
""",
}


@pytest.fixture(scope="module")
def ports(all_workers, tmp_path_factory):
    """The fast forms, as ports that count what they compile."""
    folder = tmp_path_factory.mktemp("fast")
    for name, code in COUNTED.items():
        (folder / f"fast_in_{name}.py").write_text(code)
    with importing(folder, all_workers):
        yield {name: f"fast_in_{name}" for name in FRAMEWORKS}


@pytest.fixture
def runs(all_workers, ports):
    """Trains a problem everywhere; each run takes one compilation."""

    def train(problem, updates=None):
        found = train_in_all(all_workers, ports, problem, updates)
        assert set(found) == set(FRAMEWORKS)
        for name, (_, state) in found.items():
            counted = state.pop("counted", None)
            assert (counted is None) == (name == "pytorch")
            assert counted is None or {count.min() for count in counted} == {1}
        return found

    return train


def test_a_library_may_have_wrapped_torch_compile(monkeypatch) -> None:
    torch = pytest.importorskip("torch")
    from pytorch_impl.compiler import can_compile

    known, compile = can_compile(), torch.compile

    # As Lightning does when it is imported.
    @functools.wraps(compile)
    def wrapped(*arguments, **options):
        return compile(*arguments, **options)

    monkeypatch.setattr(torch, "compile", wrapped)
    assert can_compile() is known


def require_same_bits(found, expected) -> None:
    for thetas, _ in found.values():
        comparison = compare_bits(expected, thetas)
        assert comparison.same, comparison.first
        assert comparison.compared == len(expected) * expected[0].size


def require_inside(runs, problem, updates=None) -> None:
    """Parameters, state and counts, against the oracle's."""
    exact = loop.snapshots(problem, "decimal", updates=updates)
    thetas = [each.theta for each in exact]
    bounds = list(rounding.bounds_with_state(problem, thetas))
    for name, (run, state) in runs(problem, updates).items():
        comparison = compare_bounds(thetas, run, [bound.theta for bound in bounds])
        assert comparison.same, (name, comparison.first)
        assert comparison.compared == len(exact) * thetas[0].size
        assert [s.min() for s in state["updates"]] == [each.updates for each in exact]
        assert [s.min() for s in state["loss_scale"]] == [each.loss_scale for each in exact]
        for entry in exact[0].state:
            compared = compare_bounds(
                [each.state[entry] for each in exact],
                state[entry],
                [bound.state[entry] for bound in bounds],
            )
            assert compared.same, (name, entry, compared.first)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("policy", ["apply", "drop", "carry"])
def test_ragged_and_partial_windows_in_bits(runs, policy, dtype) -> None:
    """Micro-batches of 1, 2, 1, 3, 1 examples and K = 3: padded to (3, 3), all of them."""
    full = exact_with_partial_window(dtype, epochs=4)
    problem = dataclasses.replace(full, partial_windows=policy)
    exact = loop.trajectory(problem, "fraction")
    count = rounding.exact_updates(problem, exact)
    assert count >= (1 if policy == "carry" else 4)
    require_same_bits(runs(problem, count), exact[:count])


def weighted() -> Problem:
    """Whole weights, 8 in a window and 4 in the partial one; one is 0."""
    full = hadamard()
    x, y = full.examples
    return dataclasses.replace(
        full,
        micro_batches=split(x[:7], y[:7], [3, 2, 2]),
        example_weights=[np.array(each) for each in ([1, 2, 1], [0, 4], [1, 3])],
        accumulation_steps=2,
        epochs=2,
        optimizer=Optimizer("sgd", 0.25),
    )


def test_weights_in_bits(runs) -> None:
    exact = loop.trajectory(weighted(), "fraction")
    assert rounding.exact_updates(weighted(), exact) == len(exact) == 4
    require_same_bits(runs(weighted()), exact)


def test_k_beyond_the_epoch_is_not_padded_for(runs) -> None:
    """A million micro-batches a window, of which there are two."""
    problem = hadamard(updates=4)
    long = dataclasses.replace(problem, accumulation_steps=10**6)
    require_same_bits(runs(long), loop.trajectory(long, "fraction"))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_optimizer_is_inside_its_bounds(runs, name) -> None:
    require_inside(runs, on_iris(VARIANTS[name]), 30)


COUPLED = Optimizer("sgd", 0.02, momentum=0.9, weight_decay=0.1)


@pytest.mark.parametrize(("dtype", "optimizer"), [("float32", None), ("float64", COUPLED)])
def test_the_whole_recipe_is_inside_the_bound(runs, dtype, optimizer) -> None:
    """Clipping, schedule, decay groups, weights, ragged windows that cross an epoch."""
    rng = np.random.default_rng(7)
    weights = [np.round(rng.uniform(0, 3, len(x)), 1) for x, _ in iris_sgd().micro_batches]
    recipe = iris_recipe(updates=30)
    assert not recipe.decay_bias
    problem = dataclasses.replace(
        recipe,
        dtype=dtype,
        optimizer=optimizer or recipe.optimizer,
        example_weights=weights,
        partial_windows="carry",
        schedule=Schedule(40, 6, "cosine"),
    )
    require_inside(runs, problem)


@pytest.mark.parametrize("compute_dtype", ["bfloat16", "float16"])
def test_low_precision_in_bits_and_inside_the_bound(runs, compute_dtype) -> None:
    problem = dataclasses.replace(hadamard("float32"), compute_dtype=compute_dtype)
    exact = loop.trajectory(problem, "fraction")
    count = rounding.exact_updates(problem, exact)
    assert count == {"bfloat16": 6, "float16": 9}[compute_dtype]
    require_same_bits(runs(problem, count), exact[:count])
    iris = iris_sgd("float32", updates=12, learning_rate=0.001, momentum=0.9)
    require_inside(runs, dataclasses.replace(iris, compute_dtype=compute_dtype))


def test_the_accumulator_is_float32_under_bfloat16(runs) -> None:
    """Sixteen equal gradients a window, whose sum bfloat16 could not hold to the last bit."""
    x = np.ones((16, 1))
    y = np.array([[-(1 + 2.0**-7 * (i % 2))] for i in range(16)])
    problem = Problem(
        np.zeros((1, 1)), np.zeros(1), split(x, y, [1] * 16), accumulation_steps=16,
        optimizer=Optimizer("sgd", 1.0), dtype="float32", compute_dtype="bfloat16",
    )  # fmt: skip
    require_same_bits(runs(problem), loop.trajectory(problem, "fraction"))


def test_a_loss_scale_skips_and_recompiles_nothing(runs) -> None:
    """It overflows at first, and is halved."""
    problem = dataclasses.replace(
        iris_sgd("float32", updates=12, learning_rate=0.001),
        compute_dtype="float16",
        loss_scale=LossScale(growth_interval=2),
        non_finite="skip",
    )
    assert {True, False} <= set(loop.updated(problem))
    require_inside(runs, problem)


def overflowing(**change) -> Problem:
    """The second of three windows has a micro-batch whose gradient is infinite."""
    full = hadamard()
    x, y = full.examples
    pairs = split(x, y, [2, 2, 2, 2])
    pairs[2:2] = [(1e200 * x[:1], 1e200 * y[:1]), (x[1:2], y[1:2])]
    problem = dataclasses.replace(
        full, micro_batches=pairs, accumulation_steps=2, epochs=2, **change
    )
    assert problem.updates == 6
    return problem


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_window_that_is_not_finite_is_skipped_whole(runs, optimizer) -> None:
    """State, count and rate too: the run is, in bits, the one without that window."""
    settings = {"momentum": 0.5} if optimizer == "sgd" else {}
    rates = [0.25, 0.125, 0.5, 0.25, 1.0, 1.0]
    problem = overflowing(
        non_finite="skip",
        optimizer=Optimizer(optimizer, 0.25, **settings),
        learning_rates=rates,
    )
    rest = [pair for i, pair in enumerate(problem.micro_batches) if i not in (2, 3)]
    without = dataclasses.replace(problem, micro_batches=rest, learning_rates=rates[:4])
    skipping = runs(problem)
    for name, (thetas, _) in runs(without).items():
        run, state = skipping[name]
        assert [s.min() for s in state["updates"]] == [1, 1, 2, 3, 3, 4]
        assert (run[0] == run[1]).all()
        assert (run[3] == run[4]).all()
        comparison = compare_bits([run[i] for i in (0, 2, 3, 5)], thetas)
        assert comparison.same, comparison.first
        assert comparison.compared == 4 * 15


def test_a_window_that_is_not_finite_can_stop_the_run_or_spoil_it(all_workers, ports) -> None:
    found = train_in_all(all_workers, ports, overflowing())
    for thetas, state in found.values():
        assert [bool(np.isfinite(theta).all()) for theta in thetas] == [True] + [False] * 5
        assert [s.min() for s in state["updates"]] == [1, 2, 3, 4, 5, 6]
    for name, worker in all_workers.items():
        with pytest.raises(WorkerError, match="update 2: the gradient is not finite"):
            worker.train(ports[name], overflowing(non_finite="raise"))


def test_it_tells_the_loss_and_the_norm_of_the_readable_one(all_workers, runs) -> None:
    problem = iris_recipe(updates=20)
    recipe = {name: f"{name}_impl.recipe" for name in FRAMEWORKS}
    readable = train_in_all(all_workers, recipe, problem)
    for name, (_, state) in runs(problem).items():
        for entry in ("loss", "norm"):
            numbers = [[s.min() for s in each[entry]] for each in (state, readable[name][1])]
            assert numbers[0] == pytest.approx(numbers[1], rel=1e-12)
            assert len(numbers[0]) == problem.updates == 21


@pytest.mark.parametrize("name", ["tensorflow", "jax"])
@pytest.mark.slow
def test_the_check_finds_no_difference(name) -> None:
    found = check(FAST[name])
    assert (found.verdict, found.status) == ("same", 0)
    assert not found.refused
    assert found.compared > 8000


COMPILED = pytest.mark.skipif(not shutil.which("c++"), reason="torch.compile needs a C++ compiler")


@COMPILED
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_pytorch_compiles_a_window(all_workers, tmp_path, dtype) -> None:
    code = """
import torch
from pytorch_impl import fast

def train(problem):
    graphs = torch._dynamo.utils.counters["stats"]
    before = graphs["unique_graphs"]
    for W, b, state in fast.train(problem):
        yield W, b, state | {"counted": graphs["unique_graphs"] - before}
"""
    (tmp_path / "compiled_in_pytorch.py").write_text(code)
    with importing(tmp_path, {"pytorch": all_workers["pytorch"]}):
        problem = exact_with_partial_window(dtype, epochs=4)
        exact = loop.trajectory(problem, "fraction")
        count = rounding.exact_updates(problem, exact)
        run, state = all_workers["pytorch"].train_with_state("compiled_in_pytorch", problem, count)
    require_same_bits({"pytorch": (run, state)}, exact[:count])
    assert {s.min() for s in state["counted"]} == {1}
    assert {s.min() for s in state["compiled"]} == {1}


@COMPILED
@pytest.mark.slow
def test_pytorch_compiles_the_recipe(all_workers) -> None:
    """The scale and the rates change, and so does what is skipped."""
    problem = dataclasses.replace(
        iris_sgd("float32", updates=12, learning_rate=0.001, momentum=0.9),
        schedule=Schedule(12, 3, "linear"),
        max_norm=1.0,
        compute_dtype="bfloat16",
        loss_scale=LossScale(growth_interval=2),
        non_finite="skip",
    )
    some = {"pytorch": all_workers["pytorch"]}
    require_inside(lambda *given: train_in_all(some, FAST, *given), problem)
