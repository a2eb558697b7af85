"""What the loop does in four scenarios, recorded in all three frameworks.

`python -m docs.scenarios` trains, and writes `docs/measured/scenarios.json`, which the side-by-side
page shows; a test trains again and compares.
"""

from __future__ import annotations

import datetime
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lockstep import mistakes
from lockstep.frameworks import FRAMEWORKS
from lockstep.oracle import loop
from lockstep.problem import Problem, split
from lockstep.problem.settings import Optimizer
from lockstep.workers.pool import Worker, importing, train_in_all, workers

FILE = Path(__file__).parent / "measured" / "scenarios.json"
MISTAKE = "missing-zero-grad"
# The sizes of an epoch's micro-batches, and K.
SCENARIOS = {
    "equal": (
        "Every micro-batch has two examples, and every window two micro-batches.",
        [2, 2, 2, 2],
        2,
    ),
    "ragged": (
        "The micro-batches have one and three examples. Every example has the same weight, so that"
        " the parameters are those of the equal micro-batches.",
        [1, 3, 3, 1],
        2,
    ),
    "partial window": (
        "Three micro-batches, K = 2: an epoch's last window has one. It is applied, divided by its"
        " own examples.",
        [2, 2, 4],
        2,
    ),
    "without zeroing": (
        "The equal micro-batches, and the reset is missing: every update holds the gradients of all"
        " windows before it.",
        [2, 2, 2, 2],
        2,
    ),
}


def problem(name: str) -> Problem:
    """The problem of a scenario: two features, one output, exact numbers, three epochs."""
    _, sizes, k = SCENARIOS[name]
    two = np.array([[1.0, 1.0], [1.0, -1.0]])
    x = np.kron(np.kron(two, two), two)[:, 1:3]
    y = x @ [[2.0], [-1.0]] + 1.0
    W, b = np.array([[0.0], [1.0]]), np.array([0.0])
    return Problem(
        W, b, split(x, y, sizes), epochs=3, accumulation_steps=k, optimizer=Optimizer("sgd", 0.125)
    )


def record(started: Mapping[str, Worker]) -> dict[str, Any]:
    """The parameters after each update, by scenario, in each framework and the oracle."""
    found = {}
    with tempfile.TemporaryDirectory() as folder, importing(folder, started):
        mistaken = {f: mistakes.plant(MISTAKE, f, Path(folder)) for f in started}
        for name, (words, sizes, k) in SCENARIOS.items():
            wrong = name == "without zeroing"
            ports = {f: f"{mistaken[f] if wrong else f'{f}_impl'}.training" for f in started}
            this = problem(name)
            stages = mistakes.load(MISTAKE).stages if wrong else loop.STAGES
            runs = {f: run for f, (run, _) in train_in_all(started, ports, this).items()}
            oracle = [each.theta for each in loop.run(this, "fraction", stages)]
            found[name] = {
                "words": words,
                "sizes": sizes,
                "accumulation_steps": k,
                "windows": [list(window) for window in this.windows],
                "losses": [loop.loss(theta, this) for theta in oracle],
                "parameters": {
                    each: [theta.ravel().astype(float).tolist() for theta in run]
                    for each, run in {**runs, "oracle": oracle}.items()
                },
            }
    return found


def main() -> None:
    """Train, and write what was recorded, with what and when."""
    with workers(FRAMEWORKS) as started:
        report = {
            "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            "versions": {
                framework: {p: version.partition("+")[0] for p, version in worker.ready().items()}
                for framework, worker in started.items()
            },
            "scenarios": record(started),
        }
    FILE.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
