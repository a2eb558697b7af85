"""Every optimizer: parameters and state against the oracle, after every update, with counts."""

import dataclasses
import itertools
import json
import subprocess
import sys
from decimal import Decimal, localcontext

import numpy as np
import pytest

from lockstep.frameworks import FRAMEWORKS
from lockstep.optimizers.variants import VARIANTS, on_iris
from lockstep.oracle import loop, rounding
from lockstep.oracle.compare import compare_bits, compare_bounds
from lockstep.oracle.rules import RULES, constants, initial_state
from lockstep.problem import Optimizer, Problem, hadamard, iris_adamw, iris_sgd
from lockstep.problem.settings import OPTIMIZERS
from lockstep.workers.pool import train_in_all

# Half of those that the optimizers' table measures.
UPDATES = 100
RECIPE = {name: f"{name}_impl.recipe" for name in FRAMEWORKS}


def require_inside(expected, actual, bounds) -> None:
    comparison = compare_bounds(expected, actual, bounds)
    assert comparison.same, comparison.first
    assert comparison.compared == UPDATES * 15
    assert max(comparison.distances) <= 1e-12


def require_run_inside(expected, bounds, run, optimizer) -> None:
    """Parameters, every entry of the state, and the counters."""
    thetas, state = run
    require_inside([theta for theta, _ in expected], thetas, [each.theta for each in bounds])
    names = expected[0][1]
    for name in names:
        require_inside(
            [entries[name] for _, entries in expected],
            state[name],
            [each.state[name] for each in bounds],
        )
    counters = {"updates", "loss_scale", "step"} - ({"step"} if optimizer.name == "sgd" else set())
    assert set(state) - {"loss", "norm"} == set(names) | counters
    for name in counters - {"loss_scale"}:
        counted = np.array(state[name])
        assert (counted == np.arange(1, UPDATES + 1)[:, None, None]).all()


@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_and_state_are_inside_their_bounds(all_workers, name) -> None:
    problem = on_iris(VARIANTS[name])
    exact = loop.snapshots(problem, "decimal", updates=UPDATES)
    bounds = list(rounding.bounds_with_state(problem, [each.theta for each in exact]))
    runs = train_in_all(all_workers, RECIPE, problem, UPDATES)
    assert set(runs) == set(FRAMEWORKS)
    for run in runs.values():
        require_run_inside([each[:2] for each in exact], bounds, run, problem.optimizer)


IN_OPEN_LOOP = {
    "pytorch": """
def train(problem):
    parameters, epoch = load(problem)
    optimizer, progress = make_optimizer(parameters, problem), Progress(problem)
    for _, gradient in epoch:
        apply_gradients(parameters, optimizer, (gradient[:-1], gradient[-1]), progress.rate)
        progress.advance()
        yield [*snapshot(parameters), optimizer_state(parameters, optimizer) | progress.counts()]
""",
    "jax": """
from jax_impl.precision import in_float64

@in_float64
def train(problem):
    parameters, epoch = load(problem)
    optimizer, progress = make_optimizer(parameters, problem), Progress(problem)
    state, name = optimizer.init(parameters), problem.optimizer.name
    for _, gradient in epoch:
        parameters, state = apply_gradients(
            parameters, state, optimizer, (gradient[:-1], gradient[-1])
        )
        progress.advance()
        shown = optimizer_state(parameters, state, name) | progress.counts()
        yield [*snapshot(parameters), shown]
""",
}
IN_OPEN_LOOP["tensorflow"] = IN_OPEN_LOOP["pytorch"].replace(", progress.rate", "")
IMPORTS = """
from {name}_impl.data import load, snapshot
from {name}_impl.optimizers import make_optimizer
from {name}_impl.progress import Progress
from {name}_impl.recipe import apply_gradients
from {name}_impl.state import optimizer_state
"""


@pytest.mark.parametrize("name", [name for name in VARIANTS if name.startswith("rmsprop")])
def test_at_a_constant_rate_in_open_loop(all_workers, tmp_path, name) -> None:
    """Every optimizer takes the same recorded gradients: RMSprop's own come to no rest."""
    optimizer, ports = VARIANTS[name], {}
    for each, code in IN_OPEN_LOOP.items():
        ports[each] = f"open_loop_{each}_{name.replace('-', '_')}"
        text = IMPORTS.format(name=each) + code
        (tmp_path / f"{ports[each]}.py").write_text(text)
        all_workers[each].path.append(str(tmp_path))
    gradients = recorded_gradients(optimizer)
    # A micro-batch holds a gradient, W's above b's, where its targets would stand.
    problem = Problem(
        np.zeros((4, 3)), np.zeros(3), [(np.zeros((5, 4)), g) for g in gradients],
        optimizer=optimizer,
    )  # fmt: skip
    expected = in_open_loop(optimizer, gradients)
    thetas = [theta for theta, _ in expected]
    bounds = list(rounding.bounds_with_state(problem, thetas, gradients))
    for run in train_in_all(all_workers, ports, problem).values():
        require_run_inside(expected, bounds, run, optimizer)


def recorded_gradients(optimizer: Optimizer) -> list[np.ndarray]:
    """The gradients of a run on Iris, as floats."""
    gradients = []

    def record(gradient, at):
        gradients.append(gradient)
        return gradient

    stages = dataclasses.replace(loop.STAGES, clip=record)
    loop.snapshots(on_iris(optimizer), stages=stages, updates=UPDATES)
    assert len(gradients) == UPDATES
    return gradients


def in_open_loop(optimizer: Optimizer, gradients) -> list:
    """The oracle's theta and state after each gradient, at its constant rate."""
    to_decimal = np.frompyfunc(Decimal, 1, 1)
    theta = to_decimal(np.zeros((5, 3)).astype(object))
    state, found = initial_state(optimizer, theta), []
    with localcontext(prec=loop.DIGITS):
        rate = Decimal(optimizer.learning_rate)
        for update, gradient in enumerate(gradients):
            exact = to_decimal(gradient.astype(object))
            numbers = constants(optimizer, rate, update, [True] * 5, exact.dtype)
            theta, state = RULES[optimizer.name](theta, exact, state, numbers, optimizer)
            found.append((theta, state))
    return found


def test_float32_is_inside_its_own_bound(all_workers) -> None:
    """The bound knows that Keras and optax correct the bias in float32, where 1 - 0.999 cancels."""
    problem = on_iris(VARIANTS["adamw"], "float32", updates=60)
    exact = loop.trajectory(problem, "decimal")
    bounds = list(rounding.rounding_bounds(problem, exact))
    for thetas, _ in train_in_all(all_workers, RECIPE, problem).values():
        comparison = compare_bounds(exact, thetas, bounds)
        assert comparison.same, comparison.first
        assert comparison.compared == 60 * 15


ALGEBRAIC = {
    "momentum": Optimizer("sgd", 0.25, momentum=0.5),
    "nesterov": Optimizer("sgd", 0.25, momentum=0.5, nesterov=True),
    "dampening": Optimizer("sgd", 0.25, momentum=0.5, dampening=0.5),
    "decay": Optimizer("sgd", 0.25, weight_decay=0.25),
    "nesterov-decay": Optimizer("sgd", 0.25, momentum=0.5, nesterov=True, weight_decay=0.5),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ALGEBRAIC)
def test_algebraic_rules_in_bits(all_workers, name, dtype) -> None:
    least = {"float64": 13, "float32": 5}[dtype]
    for k, decay_bias in itertools.product((1, 2, 3, 8), (True, False)):
        problem = dataclasses.replace(
            hadamard(dtype, accumulation_steps=k), optimizer=ALGEBRAIC[name], decay_bias=decay_bias
        )
        exact = loop.trajectory(problem, "fraction")
        count = rounding.exact_updates(problem, exact)
        assert count >= least
        for thetas, _ in train_in_all(all_workers, RECIPE, problem, count).values():
            comparison = compare_bits(exact[:count], thetas)
            assert comparison.same, comparison.first
            assert comparison.compared == count * 15


BITWISE = {
    "nesterov": Optimizer("sgd", 0.01, momentum=0.9, nesterov=True, weight_decay=0.01),
    "dampening": Optimizer("sgd", 0.01, momentum=0.9, dampening=0.3),
    "adam": Optimizer("adam", 0.01, weight_decay=0.01),
    "amsgrad": Optimizer("adamw", 0.01, amsgrad=True),
    "lion": Optimizer("lion", 0.001, weight_decay=0.1),
}
COMPILED = {
    "pytorch": "pytorch_impl.bitwise",
    "tensorflow": "tensorflow_impl.compiled",
    "jax": "jax_impl.compiled",
}


def gradient_norms(problem, updates: int) -> list[float]:
    found = []

    def look(gradient, at):
        found.append(float(np.linalg.norm(gradient)))
        return loop.clip(gradient, at)

    stages = dataclasses.replace(loop.STAGES, clip=look)
    loop.trajectory(problem, stages=stages, updates=updates)
    return found


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", BITWISE)
def test_bitwise_rules_in_bits_with_clipping(all_workers, name, dtype) -> None:
    free = dataclasses.replace(iris_adamw(dtype, updates=30), optimizer=BITWISE[name])
    problem = dataclasses.replace(free, max_norm=float(np.median(gradient_norms(free, 30))))
    clipped = [norm > problem.max_norm for norm in gradient_norms(problem, 30)]
    assert {True, False} == set(clipped)
    expected = loop.trajectory(problem, updates=30)
    for thetas, _ in train_in_all(all_workers, COMPILED, problem, 30).values():
        comparison = compare_bits(expected, thetas)
        assert comparison.same, comparison.first
        assert comparison.compared == 30 * 15


@pytest.mark.parametrize("name", BITWISE)
def test_bitwise_rules_in_bits_op_by_op(all_workers, name) -> None:
    problem = dataclasses.replace(iris_adamw(updates=4), optimizer=BITWISE[name], max_norm=6.0)
    expected = loop.trajectory(problem, updates=4)
    eager = {each: f"{each}_impl.bitwise" for each in ("tensorflow", "jax")}
    some = {each: all_workers[each] for each in eager}
    for thetas, _ in train_in_all(some, eager, problem, 4).values():
        comparison = compare_bits(expected, thetas)
        assert comparison.same, comparison.first
        assert comparison.compared == 4 * 15


def test_the_plain_loop_takes_every_optimizer(all_workers) -> None:
    ports = {name: f"{name}_impl.training" for name in FRAMEWORKS}
    for optimizer in VARIANTS.values():
        problem = dataclasses.replace(iris_sgd(updates=4), optimizer=optimizer)
        exact = loop.trajectory(problem, "decimal", updates=4)
        bounds = list(rounding.rounding_bounds(problem, exact))
        for thetas, _ in train_in_all(all_workers, ports, problem, 4).values():
            comparison = compare_bounds(exact, thetas, bounds)
            assert comparison.same, (optimizer, comparison.first)
            assert comparison.compared == 4 * 15


READ_DEFAULTS = """
import inspect, json, torch
CLASSES = dict(sgd="SGD", adam="Adam", adamw="AdamW", adamax="Adamax", nadam="NAdam",
               rmsprop="RMSprop", adagrad="Adagrad", adadelta="Adadelta")
found = {
    name: {key: parameter.default for key, parameter in
           inspect.signature(getattr(torch.optim, stock)).parameters.items()}
    for name, stock in CLASSES.items()
}
print(json.dumps(found, default=str))
"""


def test_defaults_are_those_of_torch_optim() -> None:
    printed = subprocess.run([sys.executable, "-c", READ_DEFAULTS], capture_output=True, text=True)
    found = json.loads(printed.stdout)
    compared = 0
    for name, defaults in found.items():
        for setting, value in OPTIMIZERS[name].items():
            theirs = defaults["lr" if setting == "learning_rate" else setting]
            assert theirs == (list(value) if isinstance(value, tuple) else value), (name, setting)
            compared += 1
    assert compared == sum(len(OPTIMIZERS[name]) for name in found) == 39
    assert set(OPTIMIZERS) - set(found) == {"lion"}
