"""Measure every mistake in every framework: `python -m docs.record_mistakes`.

Writes docs/measured/mistakes.json, from which the mistakes' pages are made. Sizes have three
significant digits, so that another CPU gives the same, and weights five, so that they are near the
fractions that they are; 0 is what rounding explains, and null is what is not finite.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from statistics import mode
from typing import Any, Literal

import numpy as np

from lockstep import mistakes
from lockstep.diagnosis.matrix import coefficient_matrix, in_words
from lockstep.diagnosis.probes import Probe, probes
from lockstep.diagnosis.replay import Replays, agrees, replays
from lockstep.experiments import planted
from lockstep.frameworks import FRAMEWORKS
from lockstep.oracle import loop
from lockstep.oracle.compare import relative
from lockstep.problem import Array, Optimizer
from lockstep.problem.settings import ProblemError, require
from lockstep.workers.folders import TemporaryFolder
from lockstep.workers.pool import Worker, importing, train_in_all, workers

FILE = Path(__file__).parent / "measured" / "mistakes.json"
# So many mistakes a worker: it keeps all that it has imported.
RENEWED_AFTER = 20
# The third digit may be another on another CPU.
DIGITS = 6e-3
# So many updates, or more, has a picture.
LONG = 12
# Plain SGD, with other numbers of accumulation steps, examples and outputs each.
SIZES = ("plain", "windows", "epochs")
# What rounding, or an accumulator in float32, may do to a factor.
ONE_FACTOR = 1e-4
Quantity = Literal["parameters", "loss"]
Numbers = list[float | None]


def shown(name: str) -> tuple[Probe, Quantity]:
    """The probe that shows a mistake, and in what: the reported loss, where the update is right."""
    try:
        return planted.shown_by(name), "parameters"
    except ProblemError:
        (windows,) = (probe for probe in probes() if probe.name == "windows")
        return windows, "loss"


def forms(name: str, probe: Probe) -> list[Replays]:
    """The loop with the mistake, in each of its forms."""
    mistake = mistakes.load(name)
    return [replays(probe, stages) for stages in (mistake.stages, *mistake.forms)]


def observed(replays: Replays, quantity: Quantity) -> tuple[list[Array], list[Array]]:
    """What a loop shows after every update, and the bounds."""
    found = replays.careful
    assert found is not None
    return (found.values, found.bounds) if quantity == "parameters" else found.observed["loss"]


def by_reference(name: str, form: int) -> dict[str, Any]:
    """What the reference loop tells of a mistake in one of its forms."""
    probe, quantity = shown(name)
    correct, mistaken = replays(probe), forms(name, probe)[form]
    return {
        "form": form,
        "probe": probe.name,
        "quantity": quantity,
        "plain": quantity == "loss" or shows(name, form, plain_probes()),
        "sgd": shows(name, form, plain_sgd()),
        "updates": {
            "without": len(observed(correct, quantity)[0]),
            "with": len(observed(mistaken, quantity)[0]),
        },
        "losses": {
            "without": losses(Replays(continued(probe)), quantity),
            "with": losses(forms(name, continued(probe))[form], quantity),
        },
        "coefficients": coefficients(name, form),
        "factors": factors(name, form),
        "distances": {"reference": distances(correct, quantity, observed(mistaken, quantity)[0])},
    }


def plain_probes() -> list[Probe]:
    """Those that the plain loop trains."""
    return [probe for probe in probes() if probe.problem.uses_only()]


def plain_sgd() -> list[Probe]:
    """Those of them with no momentum and no decay."""
    return [
        probe
        for probe in plain_probes()
        if probe.problem.optimizer == Optimizer("sgd", probe.problem.optimizer.learning_rate)
    ]


def shows(name: str, form: int, on: Iterable[Probe]) -> bool:
    """Whether a mistake in one of its forms changes the parameters on any of these probes."""
    mistake = mistakes.load(name)
    stages = (mistake.stages, *mistake.forms)[form]
    return any(planted.changes(stages, probe) for probe in on)


def continued(probe: Probe) -> Probe:
    """The probe with so many epochs that a picture shows where they lead."""
    problem = probe.problem
    if problem.learning_rates is not None or problem.schedule is not None:
        return probe
    epochs = ceil(LONG * problem.epochs / problem.updates)
    return replace(probe, problem=replace(problem, epochs=max(epochs, problem.epochs)))


def losses(replays: Replays, quantity: Quantity) -> Numbers:
    """Over an epoch, at the start and after every update; or what the loop reports of every one."""
    problem = replays.probe.problem
    if quantity == "loss":
        return rounded(float(each[0, 0]) for each in observed(replays, quantity)[0])
    with np.errstate(over="ignore"):
        thetas = [np.vstack([problem.W, problem.b]), *(replays.quick or [])]
        return rounded(loop.loss(theta, problem) for theta in thetas)


def coefficients(name: str, form: int) -> list[Numbers] | None:
    """The coefficient matrix, where it is not the correct one."""
    probe = probes()[0]
    found = coefficient_matrix(forms(name, probe)[form].quick or [])
    if not in_words(found, probe.problem):
        return None
    # Enough to tell a third from 0.333, and no more than the probe can measure.
    return [rounded(row, digits=5) for row in found.tolist()]


def factors(name: str, form: int) -> dict[str, Numbers]:
    """By what factor the first update is off, and the loss reported of it, on three probes.

    None where it is not one factor for all parameters.
    """
    found: dict[str, Numbers] = {"update": [], "loss": []}
    for probe in (probe for probe in probes() if probe.name in SIZES):
        right, wrong = replays(probe), forms(name, probe)[form]
        start = np.vstack([probe.problem.W, probe.problem.b])
        (moved, due), losses = [
            [(replays.quick or [])[0] - start for replays in (wrong, right)],
            [observed(replays, "loss")[0][0] for replays in (wrong, right)],
        ]
        found["update"] += rounded([factor(moved, due)])
        found["loss"] += rounded([factor(*losses)])
    return found


def factor(found: Array, due: Array) -> float:
    """What multiple one array is of another; not a number if it is none."""
    multiples = found / due
    return float(multiples.mean()) if np.ptp(multiples) < ONE_FACTOR else float("nan")


def distances(correct: Replays, quantity: Quantity, run: Sequence[Array]) -> Numbers:
    """How far a run is from the correct loop after every update that both have."""
    return rounded(
        0.0 if agrees(expected, actual, bound) else relative(expected, actual)
        for (expected, bound), actual in zip(zip(*observed(correct, quantity)), run)
    )


def rounded(numbers: Iterable[float], digits: int = 3) -> Numbers:
    """To so many significant digits."""
    return [float(f"{number:.{digits}g}") if np.isfinite(number) else None for number in numbers]


def in_frameworks(
    name: str, workers: Mapping[str, Worker]
) -> tuple[dict[str, Numbers], dict[str, int]]:
    """How far each framework that can make a mistake gets from the correct loop, and in what form.

    Raises ProblemError unless all of them do what the reference loop with the mistake does.
    """
    probe, quantity = shown(name)
    impossible = mistakes.load(name).impossible
    able = {each: worker for each, worker in workers.items() if each not in impossible}
    with TemporaryFolder() as folder, importing(folder, able):
        ports = {each: f"{mistakes.plant(name, each, Path(folder))}.recipe" for each in able}
        runs = train_in_all(able, ports, probe.problem)
    found, made = {}, {}
    for each, (trajectory, more) in runs.items():
        reported = {"loss": more["loss"]} if quantity == "loss" else {}
        same = [
            form.reproduces(trajectory) and not form.differing(reported)
            for form in forms(name, probe)
        ]
        require(any(same), f"{name}: {each} makes another mistake than the reference loop")
        made[each] = same.index(True)
        run = more["loss"] if quantity == "loss" else trajectory
        found[each] = distances(replays(probe), quantity, run)
    return found, made


def measure(name: str, workers: Mapping[str, Worker]) -> dict[str, Any]:
    """A mistake in each framework, and by the reference loop in the form that most of them make."""
    found, made = in_frameworks(name, workers)
    told = by_reference(name, mode(made.values()))
    return told | {"distances": told["distances"] | found}


def record(names: Sequence[str]) -> dict[str, Any]:
    """Measure mistakes in all frameworks."""
    found: dict[str, Any] = {}
    versions: dict[str, str] = {}
    for start in range(0, len(names), RENEWED_AFTER):
        with workers(FRAMEWORKS) as started:
            for name in names[start : start + RENEWED_AFTER]:
                found[name] = measure(name, started)
                print(f"{len(found)} of {len(names)}: {name}", file=sys.stderr)
            for worker in started.values():
                versions |= worker.ready()
    return {"versions": versions, "mistakes": found}


def as_text(measured: Mapping[str, Any]) -> str:
    """As JSON, a mistake a line."""
    lines = (f"  {json.dumps(name)}: {json.dumps(m)}" for name, m in measured["mistakes"].items())
    versions = json.dumps(measured["versions"])
    return f'{{\n "versions": {versions},\n "mistakes": {{\n' + ",\n".join(lines) + "\n }\n}\n"


def same(measured: Any, recorded: Any) -> bool:
    """Whether two structures are equal, but for the last digit of a number."""
    if isinstance(recorded, dict):
        return measured.keys() == recorded.keys() and all(
            same(measured[key], recorded[key]) for key in recorded
        )
    if isinstance(recorded, list):
        return len(measured) == len(recorded) and all(map(same, measured, recorded))
    if isinstance(recorded, float) and isinstance(measured, (int, float)):
        return abs(measured - recorded) <= DIGITS * abs(recorded)
    return bool(measured == recorded)


def load() -> dict[str, Any]:
    """What was measured."""
    found: dict[str, Any] = json.loads(FILE.read_text())
    return found


if __name__ == "__main__":
    FILE.write_text(as_text(record(mistakes.names())))
