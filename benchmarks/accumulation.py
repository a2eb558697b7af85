"""What K micro-batches cost in time, beside one: `python -m benchmarks.accumulation`.

Each framework runs in a process of its own, on one thread. A round times an update for every K; of
the rounds, each K's fastest counts, which a busy machine disturbs least.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.problem import Problem, split
from lockstep.problem.settings import Optimizer
from lockstep.workers.pool import environment

FILE = Path(__file__).with_suffix(".json")
EXAMPLES, FEATURES, OUTPUTS = 4096, 256, 64
STEPS = (1, 4, 16, 64, 256)
ROUNDS = 60
TITLES = {
    "pytorch": "PyTorch", "tensorflow": "TensorFlow", "jax": "JAX", "scan": "JAX, one `lax.scan`",
}  # fmt: skip


def problem(k: int) -> Problem:
    """The same examples in K micro-batches, which are one window."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(EXAMPLES, FEATURES)), rng.normal(size=(EXAMPLES, OUTPUTS))
    return Problem(
        np.zeros((FEATURES, OUTPUTS)),
        np.zeros(OUTPUTS),
        split(x, y, [EXAMPLES // k] * k),
        accumulation_steps=k,
        optimizer=Optimizer("sgd", 1e-3),
        dtype="float32",
    )


def updater(framework: str, k: int) -> Callable[[], Any]:
    """A function that takes one update with the implementation's own `train_window`, and waits."""
    package = "jax_impl" if framework == "scan" else f"{framework}_impl"
    data, optimizers, training = (
        import_module(f"{package}.{name}") for name in ("data", "optimizers", "training")
    )
    given = problem(k)
    parameters, epoch = data.load(given)
    optimizer = optimizers.make_optimizer(parameters, given)
    if framework == "scan":
        return scanned(parameters, epoch)
    if framework != "jax":
        return lambda: float(training.train_window(parameters, optimizer, epoch))
    accumulation = import_module("jax_impl.accumulation")
    optimizer = accumulation.accumulating(optimizer, given)
    return partial(
        held, training.train_window, [parameters, optimizer.init(parameters)], optimizer, epoch
    )


def held(train_window: Any, state: list[Any], optimizer: Any, epoch: Any) -> float:
    """An update in JAX, whose parameters and state are returned."""
    *state[:], loss = train_window(*state, optimizer, epoch)
    return float(loss)


def scanned(parameters: Any, epoch: Any) -> Callable[[], Any]:
    """The whole window as one compiled program: the sum is what `scan` carries."""
    import jax
    import jax.numpy as jnp

    from jax_impl.training import micro_gradient

    @jax.jit
    def update(parameters: Any, xs: Any, ys: Any) -> Any:
        def micro_step(sums: Any, micro_batch: Any) -> Any:
            loss, gradients = micro_gradient(parameters, micro_batch, EXAMPLES)
            return jax.tree.map(jnp.add, sums, gradients), loss

        sums, losses = jax.lax.scan(micro_step, jax.tree.map(jnp.zeros_like, parameters), (xs, ys))
        new = jax.tree.map(lambda p, g: p - 1e-3 * g, parameters, sums)
        return new, losses.sum()

    xs, ys = (jnp.stack(each) for each in zip(*epoch, strict=True))
    state = [parameters]

    def run() -> float:
        state[0], loss = update(state[0], xs, ys)
        return float(loss)

    return run


def measure(framework: str) -> dict[str, float]:
    """Each K's time over that of K = 1, after a first round that compiles."""
    if framework == "pytorch":
        import torch

        torch.set_num_threads(1)
    updaters = {k: updater(framework, k) for k in STEPS}
    fastest = dict.fromkeys(STEPS, math.inf)
    for number in range(ROUNDS + 1):
        for k, update in updaters.items():
            began = time.perf_counter()
            update()
            if number:
                fastest[k] = min(fastest[k], time.perf_counter() - began)
    return {str(k): round(seconds / fastest[1], 3) for k, seconds in fastest.items()}


def markdown(report: Mapping[str, Any]) -> str:
    """The guide's table."""
    ratios = report["ratios"]
    lines = [f"| K | examples of a micro-batch | {' | '.join(TITLES[each] for each in ratios)} |"]
    lines.append("|" + "---|" * (len(ratios) + 2))
    for k in STEPS:
        cells = [f"{each[str(k)]:.2g}" if k > 1 else "1" for each in ratios.values()]
        lines.append(f"| {k} | {report['examples'] // k} | {' | '.join(cells)} |")
    return "".join(f"{line}\n" for line in lines)


def main() -> None:
    """Measure every framework in a process of its own, print the table, and write all to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=TITLES, help="one, in this process; prints JSON")
    parser.add_argument("--json", type=Path, default=FILE)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(arguments.only)))
        return
    ratios = {}
    for name in TITLES:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.accumulation", "--only", name],
            check=True,
            stdout=subprocess.PIPE,
            env=environment() | {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"},
        )
        ratios[name] = json.loads(done.stdout)
    report = {"examples": EXAMPLES, "features": FEATURES, "outputs": OUTPUTS, "ratios": ratios}
    arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    print(markdown(report), end="")


if __name__ == "__main__":
    main()
