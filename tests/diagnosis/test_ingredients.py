"""Each ingredient of the bitwise form is needed: put back what it avoids, and the bits part."""

import dataclasses
import platform
from pathlib import Path

import numpy as np
import pytest

from lockstep.oracle import loop
from lockstep.oracle.compare import compare_bits
from lockstep.oracle.rules import root
from lockstep.problem import Optimizer, Problem, iris_adamw


def has(*features: str) -> bool:
    """Whether this CPU has one of these; where nothing tells, it is not said to lack them."""
    cpuinfo = Path("/proc/cpuinfo")
    return not cpuinfo.exists() or bool({*cpuinfo.read_text().split()} & {*features})


# What is put back: framework, form, file, the text that avoids it, and the text that does not.
WITHOUT = {
    "torch matrix product": (
        ("pytorch", "bitwise", "ordered.py"), "sum(x.T * W, b)", "x @ W + b"
    ),
    "tf matrix product": (
        ("tensorflow", "bitwise", "ordered.py"),
        "sum(rows, tf.convert_to_tensor(b))", "x @ W + b",
    ),
    "jax matrix product": (("jax", "compiled", "ordered.py"), "sum(x.T * W, b)", "x @ W + b"),
    "torch.sqrt": (
        ("pytorch", "bitwise", "adam.py"),
        "torch.rsqrt(v.clamp(min=tiny))", "(1 / torch.sqrt(v.clamp(min=tiny)))",
    ),
    "torch fused multiply-add": (
        ("pytorch", "bitwise", "adam.py"),
        'w * numbers["decay"] - direction * numbers["step"]',
        'torch.add(w * numbers["decay"], direction, alpha=-numbers["step"])',
    ),
    "XLA in tf.function": (
        ("tensorflow", "compiled", "compiled.py"), "autograph=False", "jit_compile=True"
    ),
    "XLA's fusion": (("jax", "compiled", "compiled.py"), "fusion,algsimp", "algsimp"),
    "XLA's simplifier": (("jax", "compiled", "compiled.py"), "fusion,algsimp", "fusion"),
}  # fmt: skip


def needs(ingredient: str) -> pytest.MarkDecorator:
    """Skip where the hardware or the library has nothing that could round differently."""
    if ingredient == "torch.sqrt":
        x86 = platform.machine() in ("x86_64", "AMD64")
        return pytest.mark.skipif(not x86, reason="oneMKL, whose square root it is, is for x86")
    if ingredient == "XLA's simplifier":
        # It writes rsqrt(v), which elsewhere is 1 / sqrt(v) again.
        return pytest.mark.skipif(not has("avx512f"), reason="this CPU has no rsqrt of float64")
    # Every 64-bit ARM has it.
    fused = has("fma", "asimd")
    return pytest.mark.skipif(not fused, reason="this CPU has no fused multiply-add")


@pytest.mark.parametrize(
    ("where", "old", "new"),
    [pytest.param(*change, id=name, marks=needs(name)) for name, change in WITHOUT.items()],
)
def test_without_an_ingredient_the_bits_part(
    all_workers, mutant, tmp_path, where, old, new
) -> None:
    name, form, file = where
    package = mutant(name, file, old, new)
    all_workers[name].path.append(str(tmp_path))
    problem = iris_adamw(updates=20)
    expected = loop.trajectory(problem, updates=20)
    comparison = compare_bits(expected, all_workers[name].train(f"{package}.{form}", problem, 20))
    assert sum(comparison.outside) > 0
    # It is rounding that differs, not the update.
    assert max(comparison.distances) < 1e-12


def divide(theta, gradient, state, c, at):
    """AdamW whose last factor is divided by instead of multiplied with."""
    _, new = loop.rule(theta, gradient, state, c, at)
    direction = new["exp_avg"] / (root(new["exp_avg_sq"]) * c["unbias"] + c["eps"])
    return theta * c["decay"] - direction / (1 / c["step"]), new


def test_frameworks_divide_by_a_scalar_differently(
    all_workers, mutant, framework, tmp_path
) -> None:
    """NumPy, PyTorch and TensorFlow divide; XLA multiplies by the reciprocal."""
    package = mutant(
        framework, "adam.py", 'direction * numbers["step"]', 'direction / (1 / numbers["step"])'
    )
    all_workers[framework].path.append(str(tmp_path))
    problem = iris_adamw(updates=5)
    stages = dataclasses.replace(loop.STAGES, rule=divide)
    expected = loop.trajectory(problem, stages=stages, updates=5)
    actual = all_workers[framework].train(f"{package}.bitwise", problem, 5)
    assert compare_bits(expected, actual).same is (framework != "jax")


def test_grappler_rounds_differently(all_workers, mutant, tmp_path) -> None:
    """Without the option, tf.function is not what was traced; in float32, where it shows."""
    package = mutant("tensorflow", "compiled.py", 'meta_optimizer": True', 'meta_optimizer": False')
    all_workers["tensorflow"].path.append(str(tmp_path))
    problem = iris_adamw("float32", updates=20)
    expected = loop.trajectory(problem, updates=20)
    actual = all_workers["tensorflow"].train(f"{package}.compiled", problem, 20)
    comparison = compare_bits(expected, actual)
    assert 0 < max(comparison.distances) < 1e-4


@pytest.mark.parametrize(("name", "flushes"), [("pytorch", 0), ("tensorflow", 1), ("jax", 1)])
def test_the_bits_end_where_numbers_underflow(all_workers, name, flushes) -> None:
    """TensorFlow and JAX make zeros of the numbers below the normal range; IEEE keeps them."""
    tiny = np.full((1, 1), 1e-20)
    problem = Problem(
        [[0.0]], [0.0], [(tiny, tiny)], optimizer=Optimizer(learning_rate=0.25), dtype="float32"
    )
    (expected,) = loop.trajectory(problem)
    assert 0 < expected[0, 0] < np.finfo(np.float32).tiny
    (actual,) = all_workers[name].train(f"{name}_impl.bitwise", problem)
    assert (actual[0, 0] == 0) == flushes


def test_the_square_root_of_zero_is_zero(all_workers, framework) -> None:
    """A feature that is always 0 has v = 0, where v (1 / sqrt(v)) alone would be NaN."""
    problem = iris_adamw(updates=3)
    micro_batches = [(x * [[1, 1, 0, 1]], y) for x, y in problem.micro_batches]
    problem = dataclasses.replace(problem, micro_batches=micro_batches)
    expected = loop.trajectory(problem, updates=3)
    assert np.isfinite(expected).all()
    actual = all_workers[framework].train(f"{framework}_impl.bitwise", problem, 3)
    assert compare_bits(expected, actual).same
