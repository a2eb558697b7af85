"""Mistakes planted in the real source of the recipe, and the checks that see them."""

import dataclasses

import pytest
from test_recipe import RECIPE, fine_tuning, many_small_micro_batches, scaled

from lockstep.oracle import loop, rounding
from lockstep.oracle.compare import compare_bits, compare_bounds
from lockstep.problem import Schedule

SINGLE = "[__import__('numpy').float32(b).item() for b in settings.betas]"
# For each framework and mistake: the file, its text, and the text that makes the mistake.
EVERYWHERE = {
    "an update early": ("schedule.py", "math.pi * progress", "math.pi * (progress + 1 / decaying)"),
    "a thousandth": ("schedule.py", "math.cos(math.pi", "0.999999 * math.cos(math.pi"),
    "not clipped": ("recipe.py", "clip(gradients, norm, problem.max_norm)", "gradients"),
}
HERE = {
    "pytorch": {
        "clip epsilon": ("safeguards.py", "(max_norm / norm)", "(max_norm / (norm + 1e-6))"),
        "float32 beta": (
            "library.py",
            "betas=settings.betas,\n        eps=settings.eps,\n        ams",
            f"betas={SINGLE},\n        eps=settings.eps,\n        ams",
        ),
        "decay of the bias": (
            "optimizers.py",
            "decay * settings.weight_decay",
            "settings.weight_decay",
        ),
        "half a window": (
            "window.py",
            "in window:\n        inputs",
            "in window[:1]:\n        inputs",
        ),
    },
    "tensorflow": {
        "clip epsilon": ("safeguards.py", "max_norm, norm", "max_norm, norm + 1e-6"),
        "float32 beta": (
            "adapted_adam.py",
            "beta1, beta2 = settings.betas\n        m, v = self._momentums",
            f"beta1, beta2 = {SINGLE}\n        m, v = self._momentums",
        ),
        "decay of the bias": ("optimizers.py", "if not problem.decay_bias:", "if False:"),
        "half a window": ("window.py", "in window:\n        with", "in window[:1]:\n        with"),
    },
    "jax": {
        "clip epsilon": ("safeguards.py", "max_norm / norm", "max_norm / (norm + 1e-6)"),
        "float32 beta": (
            "library.py",
            "scale(*settings.betas, settings.eps)",
            f"scale(*{SINGLE}, settings.eps)",
        ),
        "decay of the bias": ("optimizers.py", "(True, problem.decay_bias)", "(True, True)"),
        "half a window": (
            "window.py",
            "in window:\n        shares",
            "in window[:1]:\n        shares",
        ),
    },
}
MUTANTS = [
    pytest.param(name, change, id=f"{name}-{mutant}")
    for name, changes in HERE.items()
    for mutant, change in (EVERYWHERE | changes).items()
]


@pytest.mark.parametrize(("name", "change"), MUTANTS)
def test_mutants_of_the_recipe_are_outside(all_workers, mutant, tmp_path, name, change) -> None:
    problem = dataclasses.replace(fine_tuning(schedule=Schedule(1000, 2, "cosine")), epochs=4)
    package, worker = mutant(name, *change), all_workers[name]
    worker.path.append(str(tmp_path))
    exact = loop.trajectory(problem, "decimal")
    bounds = list(rounding.rounding_bounds(problem, exact))
    wrong = worker.train(f"{package}.recipe", problem)
    assert sum(compare_bounds(exact, wrong, bounds).outside) > 0
    right = worker.train(RECIPE[name], problem)
    assert compare_bounds(exact, right, bounds).same


ACCUMULATORS = {
    "pytorch": (
        "window.py",
        "(loss * scale).backward()",
        "(loss * scale).backward()\n"
        "        for p in parameters:\n"
        "            p.grad = p.grad.to(low).to(high)",
    ),
    "tensorflow": (
        "window.py",
        "[t + g for t, g in zip(sums, gradients)]",
        "[tf.cast(tf.cast(t + g, low), g.dtype) for t, g in zip(sums, gradients)]",
    ),
    "jax": (
        "window.py",
        "jax.tree.map(jnp.add, sums, gradients)",
        "jax.tree.map(lambda s, g: (s + g).astype(compute_dtype).astype('f4'), sums, gradients)",
    ),
}


def test_a_low_precision_accumulator_is_seen(all_workers, framework, mutant, tmp_path) -> None:
    package, worker = mutant(framework, *ACCUMULATORS[framework]), all_workers[framework]
    worker.path.append(str(tmp_path))
    problem = many_small_micro_batches()
    expected = loop.trajectory(problem, "fraction")
    assert not compare_bits(expected, worker.train(f"{package}.recipe", problem)).same


@pytest.mark.parametrize(
    "change",
    [
        ("progress.py", "self.scale / 2, 0", "self.scale, 0"),
        ("progress.py", "self.scale * 2,", "self.scale,"),
        ("safeguards.py", "return finite", "return True"),
    ],
    ids=["does not back off", "does not grow", "is not looked at"],
)
def test_mutants_of_the_loss_scale_are_seen(
    all_workers, framework, mutant, tmp_path, change
) -> None:
    package, worker = mutant(framework, *change), all_workers[framework]
    worker.path.append(str(tmp_path))
    problem = scaled(2.0**18, 2)
    expected = loop.snapshots(problem)
    thetas, state = worker.train_with_state(f"{package}.recipe", problem)
    scales = [each.loss_scale for each in expected]
    same = compare_bits([each.theta for each in expected], thetas).same
    assert not same or [s.min() for s in state["loss_scale"]] != scales
