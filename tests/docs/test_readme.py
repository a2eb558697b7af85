"""The README says what the runs say."""

import json
import re
import tomllib
from itertools import chain
from pathlib import Path

import numpy as np
from conftest import ROOT

import lockstep
from benchmarks.diagnosis import GOALS, markdown
from lockstep.diagnosis.probes import probes
from lockstep.experiments.checks import build
from lockstep.experiments.zeroing import LEARNING_RATES, MISTAKE, UPDATES
from lockstep.mistakes import load, names
from lockstep.oracle import loop
from lockstep.problem import Problem, iris_sgd

README = (ROOT / "README.md").read_text()


def test_it_is_short_and_its_links_lead_somewhere() -> None:
    assert len(README.splitlines()) <= 230
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert len(links) >= 6
    assert all((ROOT / link).exists() for link in links if not link.startswith("https:"))


def test_the_versions_are_those_that_are_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    versions = dict(pin.split(";")[0].strip().split("==") for pin in pins)
    for name in ("torch", "tensorflow", "keras", "jax", "optax", "numpy"):
        assert f"{name} {versions[name]}" in README


def test_the_losses_are_the_oracles() -> None:
    rows = re.findall(r"^ +(\d+) +([\d.]+) +(?:same bits|\d\.\de)", README, re.M)
    bounded, bitwise = rows[:3], rows[3:]
    compared = 0
    for (check, *_), found in ((build("iris-sgd"), bounded), (build("iris-adamw"), bitwise)):
        assert int(found[0][0]) == 1
        assert int(found[-1][0]) == check.updates
        for update, loss in found:
            assert f"{check.losses[int(update) - 1]:.4g}" == loss
            compared += 1
    assert compared == 6


def test_the_bounds_are_the_analysis() -> None:
    rows = re.findall(r"^ +(\d+) +[\d.]+((?: +\d\.\de-\d\d ≤ \d\.\de-\d\d){3})$", README, re.M)
    (check,) = build("iris-sgd")
    comparison = check.compare(loop.trajectory(check.problem))
    assert len(rows) == 3
    for update, cells in rows:
        bounds = re.findall(r"≤ (\S+)", cells)
        assert bounds == [f"{comparison.bounds[int(update) - 1]:.1e}"] * 3


def test_the_losses_without_zeroing_are_the_oracles() -> None:
    rows = re.findall(r"^ +(\d+)((?: +\d\.\d{4}){4})$", README, re.M)
    columns = []
    for learning_rate in LEARNING_RATES:
        problem = iris_sgd(accumulation_steps=1, updates=UPDATES, learning_rate=learning_rate)
        for stages in (loop.STAGES, load(MISTAKE).stages):
            trajectory = loop.trajectory(problem, stages=stages)
            columns.append([loop.loss(theta, problem) for theta in trajectory])
    assert len(rows) == 5
    for update, numbers in rows:
        expected = [f"{column[int(update) - 1]:.4f}" for column in columns]
        assert numbers.split() == expected


def test_the_problem_of_your_own_can_be_written(tmp_path, monkeypatch) -> None:
    (block,) = re.findall(r"```python\n(from lockstep.*?)```", README, re.S)
    monkeypatch.chdir(tmp_path)
    names = {
        "W": np.zeros((4, 3)),
        "b": np.zeros(3),
        "micro_batches": [(np.ones((2, 4)), np.ones((2, 3)))] * 5,
    }
    exec(block, names)
    assert Problem.load("mine.safetensors").updates == 6


def test_the_table_says_what_the_concept_comments_say() -> None:
    for name, folder in (("PyTorch", "pytorch"), ("TensorFlow", "tensorflow"), ("JAX", "jax")):
        (row,) = re.findall(rf"^\| \*\*{name}\*\* +\|(.*)\|$", README, re.M)
        cells = [cell.strip() for cell in row.split("|")]
        source = (ROOT / f"{folder}_impl" / "training.py").read_text()
        comments = re.findall(r"# ([a-z]+(?: \+ [a-z]+)?): ", source)
        concepts = []
        for concept, cell in zip(
            ("reset", "forward", "gradient", "accumulate", "update"), cells, strict=True
        ):
            if cell == "←":
                concepts[-1] += f" + {concept}"
            else:
                concepts.append(concept)
        assert concepts == comments


def test_the_check_prints_what_is_shown(tmp_path, monkeypatch) -> None:
    (block,) = re.findall(r"```text\n(my_port.py .*?)```", README, re.S)
    source = (ROOT / "tests/diagnosis/hand_written/torch_module.py").read_text()
    assert source.count("            optimizer.zero_grad()\n") == 1
    monkeypatch.chdir(tmp_path)
    Path("my_port.py").write_text(source.replace("            optimizer.zero_grad()\n", ""))
    printed = [" ".join(line.split()) for line in str(lockstep.check("my_port.py")).splitlines()]
    shown = [" ".join(line.split()) for line in block.splitlines()]
    assert len(shown) == 8
    missing = [line for line in shown if not any(each.startswith(line) for each in printed)]
    assert not missing


def test_the_catalogue_is_as_large_as_is_said() -> None:
    assert f"one of {len(names())}, or two" in README
    assert f"driven with {len(probes())} small" in README


def test_the_diagnosis_figures_are_those_that_were_measured() -> None:
    measured = json.loads((ROOT / "benchmarks" / "diagnosis.json").read_text())
    table = README.partition("<!-- diagnosis -->\n")[2].partition("<!-- /diagnosis -->")[0]
    assert table == markdown(measured)
    assert table.count("\n|") == len(GOALS) + 6
