"""Measure what the guide's plots and tables show: `python -m docs.record_guide`.

Numbers that depend on the machine, as rounding errors do, stand in no executed output. They are
recorded here, written into the pages' tables, and measured again by a test.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import accumulation, diagnosis, goals
from benchmarks import run as start_up
from lockstep import mistakes
from lockstep.experiments import zeroing
from lockstep.frameworks import NAMES
from lockstep.oracle import loop, rounding
from lockstep.oracle.compare import compare_bounds
from lockstep.problem import Problem, iris_sgd
from lockstep.workers.pool import Worker, importing, train_in_all, workers

FOLDER = Path(__file__).parent
FILE = FOLDER / "measured" / "guide.json"
MAX_NORM = 1.0
SHOWN = (1, 2, 5, 10, 20, 30)
DIGITS = 4


def clipped(dtype: str) -> Problem:
    """Iris with every gradient clipped, so that a difference in the coefficient shows."""
    return replace(iris_sgd(dtype), max_norm=MAX_NORM)


def record(started: Mapping[str, Worker]) -> dict[str, Any]:
    """Everything, in workers that the caller has started."""
    with zeroing.planted(started) as ports:
        trials = [zeroing.trial(started, ports, rate) for rate in zeroing.LEARNING_RATES]
    return {
        "zeroing": [
            {
                "learning_rate": trial.learning_rate,
                "zeroed": rounded_losses(trial.losses_with),
                "never zeroed": rounded_losses(trial.losses_without),
            }
            for trial in trials
        ],
        "rounding": {dtype: errors(started, clipped(dtype)) for dtype in ("float64", "float32")},
    }


def errors(started: Mapping[str, Worker], problem: Problem) -> dict[str, Any]:
    """Each framework's error, the bound, and PyTorch's with an epsilon in the clip coefficient.

    The largest of an update, over its largest parameter.
    """
    exact = loop.trajectory(problem, "decimal")
    bounds = list(rounding.rounding_bounds(problem, exact))
    ports = {name: f"{name}_impl.recipe" for name in started}
    right = {name: run for name, (run, _) in train_in_all(started, ports, problem).items()}
    with tempfile.TemporaryDirectory() as folder, importing(folder, started):
        port = f"{mistakes.plant('clip-epsilon', 'pytorch', Path(folder))}.recipe"
        wrong = started["pytorch"].train(port, problem)
    found = {name: compare_bounds(exact, run, bounds) for name, run in right.items()}
    off = compare_bounds(exact, wrong, bounds)
    return {
        "bounds": rounded(off.bounds or ()),
        "errors": {name: rounded(each.distances) for name, each in found.items()},
        "inside": {name: each.same for name, each in found.items()},
        "compared": {name: each.compared for name, each in found.items()},
        "clip-epsilon": rounded(off.distances),
        "clip-epsilon outside": sum(off.outside),
    }


def rounded(numbers: Iterable[float]) -> list[float]:
    """As many digits as a plot or a table needs."""
    return [float(f"{number:.{DIGITS}g}") for number in numbers]


def rounded_losses(losses: Mapping[str, list[float]]) -> dict[str, list[float]]:
    """The same for each framework."""
    return {name: rounded(each) for name, each in losses.items()}


def load() -> dict[str, Any]:
    """What was measured."""
    return json.loads(FILE.read_text())


def bounds_table(measured: Mapping[str, Any]) -> str:
    """Error and bound, update by update, in both dtypes."""
    names = " | ".join(NAMES.values())
    lines = [
        f"| dtype | update | {names} | bound | clip epsilon |",
        "|---|---|---|---|---|---|---|",
    ]
    for dtype, found in measured["rounding"].items():
        for update in SHOWN:
            each = [found["errors"][name][update - 1] for name in NAMES]
            each += [found[name][update - 1] for name in ("bounds", "clip-epsilon")]
            cells = " | ".join(f"{number:.1e}" for number in each)
            lines.append(f"| {dtype} | {update} | {cells} |")
    return "".join(f"{line}\n" for line in lines)


def tables() -> dict[tuple[str, str], str]:
    """The tables between markers, by page and name."""
    times = json.loads(accumulation.FILE.read_text())
    report = json.loads(goals.FILE.read_text())
    speed = goals.tables(report)
    return {
        **{("speed.md", name): table for name, table in speed.items()},
        ("speed.md", "start-up"): start_up.markdown(json.loads(start_up.FILE.read_text())),
        ("read/fast.md", "costs"): goals.costs_table(report),
        ("accumulation.md", "accumulation"): accumulation.markdown(times),
        ("identical.md", "bounds"): bounds_table(load()),
        ("check.md", "diagnosis"): diagnosis.markdown(json.loads(diagnosis.FILE.read_text())),
    }


def with_table(page: str, name: str, table: str) -> str:
    """A page with the table between its markers."""
    new, count = re.subn(
        rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)", lambda _: table, page, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"{count} tables {name} instead of 1")
    return new


def main() -> None:
    """Measure, and write the file and the tables."""
    with workers() as started:
        measured = record(started)
    FILE.write_text(json.dumps(measured, indent=1) + "\n")
    for (page, name), table in tables().items():
        file = FOLDER / page
        file.write_text(with_table(file.read_text(), name, table))


if __name__ == "__main__":
    main()
