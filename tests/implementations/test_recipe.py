"""The whole recipe: policies, weights, schedules, clipping, low precision, non-finite windows."""

import dataclasses
import math

import numpy as np
import pytest
from conftest import exact_with_partial_window
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lockstep.frameworks import FRAMEWORKS
from lockstep.optimizers.variants import VARIANTS
from lockstep.oracle import loop, rounding
from lockstep.oracle.compare import compare_bits, compare_bounds
from lockstep.problem import (
    LossScale,
    Optimizer,
    Problem,
    ProblemError,
    Schedule,
    hadamard,
    iris_examples,
    iris_recipe,
    iris_sgd,
    split,
)
from lockstep.problem.settings import OPTIMIZERS
from lockstep.workers.pool import WorkerError, train_in_all

RECIPE = {name: f"{name}_impl.recipe" for name in FRAMEWORKS}
WEIGHTS = [[1, 2, 1], [0, 4], [1, 3]]


def require_same_bits(all_workers, problem, expected=None) -> None:
    """All three hold the oracle's bits, of parameters and state, in all updates."""
    snapshots = expected or loop.snapshots(problem)
    for thetas, state in train_in_all(all_workers, RECIPE, problem).values():
        comparison = compare_bits([each.theta for each in snapshots], thetas)
        assert comparison.same, comparison.first
        assert comparison.compared == problem.updates * snapshots[0].theta.size
        assert [s.min() for s in state["updates"]] == [each.updates for each in snapshots]
        assert [s.min() for s in state["loss_scale"]] == [each.loss_scale for each in snapshots]
        for name in snapshots[0].state:
            compared = compare_bits([each.state[name] for each in snapshots], state[name])
            assert compared.same, (name, compared.first)


def require_inside(all_workers, problem, updates=None) -> None:
    """All three are inside the bound of the oracle, parameters and state."""
    exact = loop.snapshots(problem, "decimal", updates=updates)
    thetas = [each.theta for each in exact]
    bounds = list(rounding.bounds_with_state(problem, thetas))
    for name, (run, state) in train_in_all(all_workers, RECIPE, problem, updates).items():
        comparison = compare_bounds(thetas, run, [bound.theta for bound in bounds])
        assert comparison.same, (name, comparison.first)
        assert comparison.compared == len(exact) * thetas[0].size
        for entry in exact[0].state:
            compared = compare_bounds(
                [each.state[entry] for each in exact],
                state[entry],
                [bound.state[entry] for bound in bounds],
            )
            assert compared.same, (name, entry, compared.first)


def fine_tuning(**change) -> Problem:
    return dataclasses.replace(iris_recipe(updates=60), **change)


@pytest.mark.parametrize("decay", ["constant", "linear", "cosine"])
def test_the_fine_tuning_recipe_is_inside_the_bound(all_workers, decay) -> None:
    require_inside(all_workers, fine_tuning(schedule=Schedule(60, 6, decay)))


@pytest.mark.parametrize("policy", ["apply", "drop", "carry"])
def test_partial_windows_in_bits(all_workers, policy) -> None:
    """Five micro-batches and K = 3; windows have 4 examples, or 2 and 6 when carried."""
    full = exact_with_partial_window("float64", epochs=4)
    problem = dataclasses.replace(full, partial_windows=policy)
    sizes = [[len(problem.micro_batches[i % 5][0]) for i in w] for w in problem.windows]
    assert [len(each) for each in sizes] == {
        "apply": [3, 2] * 4,
        "drop": [3] * 4,
        "carry": [3] * 6,
    }[policy]
    exact = loop.trajectory(problem, "fraction")
    count = rounding.exact_updates(problem, exact)
    assert count >= (1 if policy == "carry" else 4)
    for thetas, _ in train_in_all(all_workers, RECIPE, problem, count).values():
        comparison = compare_bits(exact[:count], thetas)
        assert comparison.same, comparison.first
        assert comparison.compared == count * 15


@pytest.mark.parametrize("policy", ["apply", "drop", "carry"])
def test_partial_windows_on_iris(all_workers, policy) -> None:
    require_inside(all_workers, fine_tuning(partial_windows=policy, schedule=Schedule(99)))


def weighted(dtype="float64", **change) -> Problem:
    """Seven examples with whole weights: 8 in a window, 4 in the partial one; a 0 is padding."""
    full = hadamard(dtype)
    x, y = full.examples
    problem = dataclasses.replace(
        full,
        micro_batches=split(x[:7], y[:7], [3, 2, 2]),
        example_weights=[np.array(each) for each in WEIGHTS],
        accumulation_steps=2,
        epochs=2,
        optimizer=Optimizer("sgd", 0.25),
    )
    return dataclasses.replace(problem, **change)


def test_weighted_windows_in_bits(all_workers) -> None:
    problem = weighted()
    exact = loop.trajectory(problem, "fraction")
    assert rounding.exact_updates(problem, exact) == len(exact) == 4
    for thetas, _ in train_in_all(all_workers, RECIPE, problem).values():
        comparison = compare_bits(exact, thetas)
        assert comparison.same, comparison.first
        assert comparison.compared == 60


def test_a_weight_of_zero_is_padding(all_workers) -> None:
    """The same bits as without the example, and as with its copies for weights above one."""
    problem = weighted()
    copies = [
        (np.repeat(x, w, axis=0), np.repeat(y, w, axis=0))
        for (x, y), w in zip(problem.micro_batches, WEIGHTS, strict=True)
    ]
    assert [len(x) for x, _ in copies] == [4, 4, 4]
    plain = dataclasses.replace(problem, micro_batches=copies, example_weights=None)
    left = train_in_all(all_workers, RECIPE, problem)
    right = train_in_all(all_workers, RECIPE, plain)
    for name in FRAMEWORKS:
        comparison = compare_bits(left[name][0], right[name][0])
        assert comparison.same, comparison.first
        assert comparison.compared == 60


def test_weights_are_within_the_bound_on_iris(all_workers) -> None:
    rng = np.random.default_rng(7)
    sizes = [len(x) for x, _ in iris_sgd().micro_batches]
    weights = [np.round(rng.uniform(0, 3, n), 1) for n in sizes]
    assert sum((w == 0).sum() for w in weights) > 0
    require_inside(all_workers, fine_tuning(example_weights=weights))


HUGE = 1e200


def with_a_window_that_overflows(**change) -> Problem:
    """The second of three windows has a micro-batch whose gradient is infinite in float64."""
    full = hadamard()
    x, y = full.examples
    pairs = split(x, y, [2, 2, 2, 2])
    pairs[2:2] = [(HUGE * x[:1], HUGE * y[:1]), (x[1:2], y[1:2])]
    problem = dataclasses.replace(
        full, micro_batches=pairs, accumulation_steps=2, epochs=2, **change
    )
    assert problem.updates == 6
    return problem


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_a_window_that_is_not_finite_is_skipped_whole(all_workers, momentum) -> None:
    """Nothing is left behind: the run is, in bits, the one without that window."""
    optimizer = Optimizer("sgd", 0.25, momentum=momentum)
    problem = with_a_window_that_overflows(non_finite="skip", optimizer=optimizer)
    require_same_bits(all_workers, problem)
    rest = [pair for i, pair in enumerate(problem.micro_batches) if i not in (2, 3)]
    without = dataclasses.replace(problem, micro_batches=rest)
    skipping = train_in_all(all_workers, RECIPE, problem)
    for name, (thetas, _) in train_in_all(all_workers, RECIPE, without).items():
        run = skipping[name][0]
        assert (run[0] == run[1]).all()
        comparison = compare_bits(thetas, [run[i] for i in (0, 2, 3, 5)])
        assert comparison.same, comparison.first
        assert comparison.compared == 60


def test_a_window_that_is_not_finite_raises_the_same_everywhere(all_workers) -> None:
    problem = with_a_window_that_overflows(non_finite="raise")
    message = "FloatingPointError: update 2: the gradient is not finite"
    with pytest.raises(FloatingPointError, match="update 2: the gradient is not finite"):
        loop.trajectory(problem)
    for name, worker in all_workers.items():
        with pytest.raises(WorkerError, match=message):
            worker.train(RECIPE[name], problem)


def test_a_window_that_is_not_finite_is_applied_by_default(all_workers) -> None:
    problem = with_a_window_that_overflows()
    for thetas, _ in train_in_all(all_workers, RECIPE, problem).values():
        assert np.isfinite(thetas[0]).all()
        assert not np.isfinite(thetas[1]).all()


def scaled(initial: float, interval: int, **change) -> Problem:
    """The exact problem in float16, whose largest number is 65 504, with a loss scale."""
    problem = dataclasses.replace(
        hadamard("float32", updates=8),
        compute_dtype="float16",
        loss_scale=LossScale(initial, interval),
        non_finite="skip",
    )
    return dataclasses.replace(problem, **change)


def test_a_dynamic_loss_scale_in_bits(all_workers) -> None:
    """It overflows, backs off until it fits, and grows again; the updates are the same bits."""
    problem = scaled(2.0**18, 2)
    expected = loop.snapshots(problem)
    scales = [each.loss_scale for each in expected]
    assert scales[:3] == [2.0**17, 2.0**16, 2.0**15]
    assert max(scales[3:]) > scales[2]
    assert [each.updates for each in expected][:3] == [0, 0, 0]
    require_same_bits(all_workers, problem, expected)
    small = loop.trajectory(scaled(1.0, 100), "fraction")
    updated = [
        each.theta
        for last, each in zip([None, *expected], expected, strict=False)
        if each.updates > (last.updates if last else 0)
    ]
    unscaled = dataclasses.replace(problem, loss_scale=None)
    count = rounding.exact_updates(dataclasses.replace(unscaled, non_finite="apply"), small)
    count = min(count, len(updated))
    assert count >= 3
    assert compare_bits(small[:count], updated[:count]).same


def test_the_loss_scale_is_grad_scalers() -> None:
    """The same scales as torch.amp.GradScaler on the same sequence of windows."""
    import torch

    finite = [False, True, True, True, False, True, True, False, False, True, True, True, True]
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    parameter = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([parameter], 0.1)
    ours, theirs = loop.Scale(LossScale(2.0**10, 2)), []
    scales = []
    for each in finite:
        parameter.grad = torch.full((1,), 1.0 if each else math.inf)
        scaler.scale(torch.ones(1))
        scaler.step(optimizer)
        scaler.update()
        theirs.append(scaler.get_scale())
        ours.grow() if each else ours.back_off()
        scales.append(ours.value)
    assert scales == theirs
    assert len(set(scales)) >= 3


@pytest.mark.parametrize("compute_dtype", ["bfloat16", "float16"])
def test_low_precision_in_bits(all_workers, compute_dtype) -> None:
    problem = dataclasses.replace(hadamard("float32"), compute_dtype=compute_dtype)
    exact = loop.trajectory(problem, "fraction")
    count = rounding.exact_updates(problem, exact)
    assert count == {"bfloat16": 6, "float16": 9}[compute_dtype]
    for thetas, _ in train_in_all(all_workers, RECIPE, problem, count).values():
        comparison = compare_bits(exact[:count], thetas)
        assert comparison.same, comparison.first
        assert comparison.compared == count * 15


@pytest.mark.parametrize("compute_dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_low_precision_is_inside_the_bound(all_workers, dtype, compute_dtype) -> None:
    problem = dataclasses.replace(
        iris_sgd(dtype, updates=12, learning_rate=0.001, momentum=0.9), compute_dtype=compute_dtype
    )
    require_inside(all_workers, problem)


@pytest.mark.parametrize("compute_dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(
    "change",
    [
        {"normalise": lambda accumulator, at: accumulator / 2},
        {"normalise": lambda accumulator, at: accumulator * 3 / 2},
        {"weigh": lambda at: at.number(1) / 2 / at.examples},
        {"clip": lambda gradient, at: loop.clip_to(gradient, at.number(1))},
    ],
    ids=["halved", "half as much again", "mean of means", "clipped"],
)
def test_the_bound_of_low_precision_is_no_blank_cheque(compute_dtype, change) -> None:
    problem = dataclasses.replace(
        iris_sgd("float32", updates=12, learning_rate=0.001, momentum=0.9),
        compute_dtype=compute_dtype,
    )
    exact = loop.trajectory(problem, "decimal")
    bounds = list(rounding.rounding_bounds(problem, exact))
    stages = dataclasses.replace(loop.STAGES, **change)
    wrong = loop.trajectory(problem, "decimal", stages)
    assert sum(compare_bounds(exact, [w.astype(float) for w in wrong], bounds).outside) > 0


def test_the_default_loss_scale_is_inside_the_bound(all_workers) -> None:
    """It overflows at first: the exact run skips what the run in its own dtype skips."""
    problem = dataclasses.replace(
        iris_sgd("float32", updates=12, learning_rate=0.001),
        compute_dtype="float16",
        loss_scale=LossScale(),
        non_finite="skip",
    )
    assert False in loop.updated(problem)
    require_inside(all_workers, problem)


@pytest.mark.parametrize(("dtype", "huge"), [("float32", 1e11), ("float64", 1e80)])
def test_a_norm_that_overflows_is_not_finite(all_workers, dtype, huge) -> None:
    """Its numbers are finite, the sum of their squares is not."""
    x, y = np.array([[1.0, 2.0], [3.0, 1.0]]), np.array([[1.0], [2.0]])
    problem = Problem(
        np.ones((2, 1)), np.zeros(1), [(x, y), (x * huge, y), (x, y)], dtype=dtype,
        optimizer=Optimizer("sgd", 0.125, momentum=0.5), max_norm=1.0, non_finite="skip",
    )  # fmt: skip
    assert loop.updated(problem) == [True, False, True]
    for thetas, state in train_in_all(all_workers, RECIPE, problem).values():
        assert [s.min() for s in state["updates"]] == [1, 1, 2]
        assert (thetas[0] == thetas[1]).all()
        assert np.isfinite(thetas[2]).all()


def test_the_recipe_tells_its_loss_and_its_norm(all_workers) -> None:
    """Before the update, of the window, weighted, the norm before clipping."""
    rng = np.random.default_rng(3)
    weights = [rng.uniform(0.5, 2, len(x)) for x, _ in iris_sgd().micro_batches]
    problem = fine_tuning(example_weights=weights)
    norms = []

    def look(gradient, at):
        norms.append(float(np.linalg.norm(gradient)))
        return loop.clip(gradient, at)

    thetas = loop.trajectory(problem, stages=dataclasses.replace(loop.STAGES, clip=look))
    before = [np.vstack([problem.W, problem.b]), *thetas[:-1]]
    losses = []
    for theta, window in zip(before, problem.windows, strict=True):
        pairs = [problem.micro_batches[i] for i in window]
        alone = dataclasses.replace(
            iris_sgd(), micro_batches=pairs, example_weights=[weights[i] for i in window]
        )
        losses.append(loop.loss(theta, alone))
    assert max(norms) > problem.max_norm
    for _, state in train_in_all(all_workers, RECIPE, problem).values():
        assert [s.min() for s in state["loss"]] == pytest.approx(losses, rel=1e-12)
        assert [s.min() for s in state["norm"]] == pytest.approx(norms, rel=1e-11)
    assert len(losses) == len(norms) == 60


def many_small_micro_batches() -> Problem:
    """Sixteen equal gradients a window, whose sum bfloat16 could not hold to the last bit."""
    x = np.ones((16, 1))
    y = np.array([[-(1 + 2.0**-7 * (i % 2))] for i in range(16)])
    return Problem(
        np.zeros((1, 1)), np.zeros(1), split(x, y, [1] * 16), accumulation_steps=16,
        optimizer=Optimizer("sgd", 1.0), dtype="float32", compute_dtype="bfloat16",
    )  # fmt: skip


def test_the_accumulator_is_float32_under_bfloat16(all_workers) -> None:
    problem = many_small_micro_batches()
    (exact,) = loop.trajectory(problem, "fraction")
    for thetas, _ in train_in_all(all_workers, RECIPE, problem).values():
        comparison = compare_bits([exact], thetas)
        assert comparison.same, comparison.first
        assert comparison.compared == 2


# --- small seams: each must be outside the bound in float64 ---------------------------------------


def outside(problem, stages, updates=None) -> int:
    """How many numbers a run with replaced stages has outside the bound."""
    exact = loop.trajectory(problem, "decimal", updates=updates)
    bounds = list(rounding.rounding_bounds(problem, exact))
    assert compare_bounds(exact, loop.trajectory(problem, updates=updates), bounds).same
    wrong = loop.trajectory(problem, stages=stages, updates=updates)
    return sum(compare_bounds(exact, wrong, bounds).outside)


def clip_with_epsilon(gradient, at):
    coefficient = at.max_norm / (np.linalg.norm(gradient) + 1e-6)
    return gradient * min(coefficient, 1.0)


def one_update_early(at):
    return loop.rate_of(at.problem, at.update + 1)


def beta_as_float32(problem):
    betas = tuple(float(np.float32(beta)) for beta in problem.optimizer.betas)
    optimizer = dataclasses.replace(problem.optimizer, betas=betas)
    return dataclasses.replace(problem, optimizer=optimizer)


SEAMS = {
    "clip epsilon of 1e-6": dataclasses.replace(loop.STAGES, clip=clip_with_epsilon),
    "cosine of 1000 updates, one off": dataclasses.replace(
        loop.STAGES, learning_rate=one_update_early
    ),
    "beta as float32": dataclasses.replace(loop.STAGES, settings=beta_as_float32),
}


@pytest.mark.parametrize("seam", SEAMS)
def test_small_seams_are_outside_the_bound(seam) -> None:
    problem = fine_tuning(schedule=Schedule(1000, decay="cosine"))
    assert outside(problem, SEAMS[seam]) > 60 * 15 / 2


def test_the_whole_cosine_of_a_thousand_updates(all_workers) -> None:
    """All of it, to the end, where the rate is a millionth of its peak."""
    x, y = iris_examples()
    problem = Problem(
        np.zeros((4, 3)), np.zeros(3), split(x[:20], y[:20], [10, 10]), epochs=500,
        optimizer=Optimizer("sgd", 0.01), schedule=Schedule(1000, decay="cosine"),
    )  # fmt: skip
    require_inside(all_workers, problem)
    shifted = dataclasses.replace(loop.STAGES, learning_rate=later)
    assert outside(problem, shifted) > 1000 * 15 / 2


def later(at):
    """A schedule one update longer than it should be."""
    longer = dataclasses.replace(at.problem, schedule=Schedule(1001, decay="cosine"))
    return loop.rate_of(longer, at.update)


# --- any recipe -----------------------------------------------------------------------------------


def numbers(count: int):
    tenths = st.integers(-40, 40).map(lambda n: n / 10)
    return st.lists(tenths, min_size=count, max_size=count)


SETTINGS = {
    "momentum": st.floats(0.1, 0.95),
    "dampening": st.floats(0.1, 0.9),
    "betas": st.tuples(st.floats(0.3, 0.95), st.floats(0.8, 0.9999)),
    "eps": st.sampled_from([1e-10, 1e-8, 1e-6, 1e-3]),
    "alpha": st.floats(0.5, 0.99),
    "rho": st.floats(0.5, 0.99),
    "lr_decay": st.sampled_from([0.0, 0.01, 0.5]),
    "initial_accumulator_value": st.sampled_from([0.0, 0.1]),
    "momentum_decay": st.floats(0, 0.1),
}


@st.composite
def recipes(draw, variant: str) -> Problem:
    """A small problem with any optimizer, settings, K, epochs, sizes, clip, schedule, policy."""
    features, outputs = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    x = np.reshape(draw(numbers(sum(sizes) * features)), (-1, features))
    y = np.reshape(draw(numbers(sum(sizes) * outputs)), (-1, outputs))
    k = draw(st.integers(1, 4))
    policy = draw(st.sampled_from(["apply", "drop", "carry"]))
    epochs = draw(st.integers(2, 6))
    if policy == "drop" or policy == "carry":
        k = min(k, len(sizes))
    weights = None
    if draw(st.booleans()):
        drawn = draw(st.lists(st.integers(0, 5), min_size=sum(sizes), max_size=sum(sizes)))
        starts = np.cumsum([0, *sizes[:-1]])
        padded = np.array(drawn) / 2
        padded[starts] += 1  # no window is padding only
        weights = np.split(padded, starts[1:])
    optimizer = VARIANTS[variant]
    optimizer = dataclasses.replace(
        optimizer,
        learning_rate=optimizer.learning_rate * draw(st.floats(0.1, 2)),
        weight_decay=draw(st.sampled_from([0.0, 0.01, 0.3])),
        **{
            name: draw(SETTINGS[name])
            for name in sorted(SETTINGS.keys() & OPTIMIZERS[optimizer.name].keys())
            # A variant stays what it is: with momentum, or with dampening, or without.
            if name not in ("momentum", "dampening") or getattr(optimizer, name)
        },
    )
    problem = Problem(
        W=np.reshape(draw(numbers(features * outputs)), (features, outputs)),
        b=draw(numbers(outputs)),
        micro_batches=split(x, y, sizes),
        epochs=epochs,
        accumulation_steps=k,
        optimizer=optimizer,
        partial_windows=policy,
        decay_bias=draw(st.booleans()),
        max_norm=draw(st.none() | st.floats(0.1, 50)),
        example_weights=weights,
        non_finite=draw(st.sampled_from(["apply", "skip", "raise"])),
        dtype=draw(st.sampled_from(["float64", "float64", "float32"])),
    )
    if draw(st.booleans()):
        extra = draw(st.integers(0, 20))
        schedule = Schedule(
            problem.updates + extra,
            draw(st.integers(0, problem.updates)),
            draw(st.sampled_from(["constant", "linear", "cosine"])),
        )
        return dataclasses.replace(problem, schedule=schedule)
    return problem


@pytest.mark.parametrize("variant", VARIANTS)
@settings(
    deadline=None,
    max_examples=6,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_any_recipe_is_inside_the_bound(all_workers, variant, data) -> None:
    try:
        require_inside(all_workers, data.draw(recipes(variant)))
    except ProblemError as error:
        # A gradient that is all rounding, over its own size: Adam's first update in float32.
        assume("has no bound" not in str(error))
        raise
