"""Each check is seen to fail: mistakes planted in the real source, and what catches them."""

from functools import partial

import pytest
from conftest import exact_with_partial_window, exact_with_wide_numbers

from lockstep import mistakes
from lockstep.oracle import loop, rounding
from lockstep.oracle.compare import compare_bits, compare_bounds
from lockstep.problem import hadamard, iris_adamw, iris_sgd

WINDOWS = "    for start in range(0, count, accumulation_steps):\n"
OFF_BY_ONE = "    yield micro_batches[:1]\n    for start in range(1, count, accumulation_steps):\n"
DROPPED = (
    "    whole = count // accumulation_steps * accumulation_steps\n"
    "    for start in range(0, whole, accumulation_steps):\n"
)
EVERYWHERE = {
    "no-division": ("model.py", "/ window_examples", "/ 1"),
    "boundary-off-by-one": ("data.py", WINDOWS, OFF_BY_ONE),
    "dropped-partial-window": ("data.py", WINDOWS, DROPPED),
}
HERE = {
    "pytorch": {
        "no-zeroing": ("training.py", "    optimizer.zero_grad()\n", ""),
        "zeroing-every-micro-step": (
            "training.py",
            "        loss.backward()\n",
            "        optimizer.zero_grad()\n        loss.backward()\n",
        ),
        "float32-accumulator": (
            "training.py",
            "        loss.backward()\n",
            "        loss.backward()\n"
            "        for p in parameters:\n"
            "            p.grad = p.grad.float().to(p.dtype)\n",
        ),
    },
    "tensorflow": {
        "zeroing-every-micro-step": (
            "training.py",
            "[a + g for a, g in pairs]",
            "[g for a, g in pairs]",
        ),
        "float32-accumulator": (
            "training.py",
            "[a + g for a, g in pairs]",
            "[tf.cast(tf.cast(a + g, tf.float32), g.dtype) for a, g in pairs]",
        ),
    },
    "jax": {
        # What optax does unless it is told otherwise.
        "float32-accumulator": (
            "accumulation.py",
            "        accumulator_dtype=dtype,  # float32 if not set\n",
            "",
        ),
        "running-mean": ("accumulation.py", "use_grad_mean=False", "use_grad_mean=True"),
    },
}
MUTANTS = [
    pytest.param(name, change, id=f"{name}-{mutant}")
    for name, changes in HERE.items()
    for mutant, change in (EVERYWHERE | changes).items()
]


def caught(expected, actual, compare) -> bool:
    """Whether a comparison fails, be it for the number of updates."""
    if len(expected) != len(actual):
        with pytest.raises(ValueError, match="updates instead of"):
            compare(actual)
        return True
    return not compare(actual).same


@pytest.mark.parametrize(("name", "change"), MUTANTS)
def test_mutants_are_caught_in_bits_and_by_the_bound(
    all_workers, mutant, tmp_path, name, change
) -> None:
    package = mutant(name, *change)
    worker = all_workers[name]
    worker.path.append(str(tmp_path))
    # The first shows the mistakes of structure, the second, with wide numbers, those of precision.
    outcomes = []
    for exact in (exact_with_partial_window("float64"), exact_with_wide_numbers()):
        expected = loop.trajectory(exact, "fraction")
        actual = worker.train(f"{package}.training", exact)
        outcomes.append(caught(expected, actual, partial(compare_bits, expected)))
    assert any(outcomes)

    iris = iris_sgd(updates=6)
    decimals = loop.trajectory(iris, "decimal")
    bounds = list(rounding.rounding_bounds(iris, decimals))
    actual = worker.train(f"{package}.training", iris)
    assert caught(decimals, actual, partial(compare_bounds, decimals, bounds=bounds))


def test_a_rate_that_keras_holds_as_float32_is_outside_the_bound(
    all_workers, mutant, tmp_path
) -> None:
    package = mutant(
        "tensorflow",
        "optimizers.py",
        "RULES[settings.name](rate, settings)",
        "RULES[settings.name](settings.learning_rate, settings)",
    )
    worker = all_workers["tensorflow"]
    worker.path.append(str(tmp_path))
    iris = iris_sgd(updates=6)
    expected = loop.trajectory(iris, "decimal")
    actual = worker.train(f"{package}.training", iris)
    bounds = list(rounding.rounding_bounds(iris, expected))
    assert compare_bounds(expected, actual, bounds).outside[0] > 0
    # At a rate that float32 can hold, there is nothing to see.
    exact = hadamard()
    actual = worker.train(f"{package}.training", exact)
    assert compare_bits(loop.trajectory(exact, "fraction"), actual).same


@pytest.mark.parametrize(
    "change",
    [
        ("bitwise.py", 'numbers["mean"]', "1.0"),
        ("constants.py", "(beta2, 1 - beta2)", "(beta2, 1.0001 - beta2)"),
        ("adam.py", 'w * numbers["decay"]', "w"),
    ],
    ids=["no-division", "moment", "decay"],
)
def test_mutants_of_the_bitwise_loop_are_caught(
    all_workers, framework, mutant, tmp_path, change
) -> None:
    package = mutant(framework, *change)
    all_workers[framework].path.append(str(tmp_path))
    problem = iris_adamw()
    actual = all_workers[framework].train(f"{package}.bitwise", problem, 3)
    comparison = compare_bits(loop.trajectory(problem, updates=3), actual)
    assert sum(comparison.outside) >= 20


def test_the_planted_mistake_is_the_oracles(all_workers, framework, tmp_path) -> None:
    package = mistakes.plant("missing-zero-grad", framework, tmp_path)
    worker = all_workers[framework]
    worker.path.append(str(tmp_path))
    problem, momentum = hadamard(), hadamard(momentum=1.0)
    stages = mistakes.load("missing-zero-grad").stages
    expected = loop.trajectory(problem, "fraction", stages)
    assert rounding.exact_updates(momentum, expected) == 48
    without = worker.train(f"{package}.training", problem)
    assert compare_bits(expected, without).same
    assert compare_bits(without, worker.train(f"{framework}_impl.training", momentum)).same
    zeroed = worker.train(f"{framework}_impl.training", problem)
    difference = compare_bits(zeroed, without)
    assert difference.outside[0] == 0
    assert difference.outside[1] > 0


def test_a_diff_that_no_longer_applies_is_an_error(tmp_path, monkeypatch) -> None:
    text = mistakes.diff("missing-zero-grad", "pytorch").replace("examples = sum", "examples = max")
    monkeypatch.setattr(mistakes, "diff", lambda mistake, framework: text)
    with pytest.raises(ValueError, match=r"no longer applies to training\.py"):
        mistakes.plant("missing-zero-grad", "pytorch", tmp_path)
    monkeypatch.setattr(mistakes, "diff", lambda mistake, framework: "")
    with pytest.raises(ValueError, match="changes nothing"):
        mistakes.plant("missing-zero-grad", "pytorch", tmp_path / "again")
