"""The README says what the runs say."""

import json
import re
from pathlib import Path

import pytest
from conftest import ROOT, pinned

import lockstep
from lockstep.experiments.checks import build
from lockstep.frameworks import FRAMEWORKS
from lockstep.mistakes import names
from lockstep.oracle import loop

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.M | re.S)


def test_it_is_short_and_its_links_lead_somewhere() -> None:
    assert len(README.splitlines()) <= 120
    assert max(map(len, README.splitlines())) <= 110
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert len(links) >= 6
    assert all((ROOT / link).exists() for link in links if not link.startswith("https:"))


def test_the_versions_are_those_that_are_installed() -> None:
    versions = pinned()
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


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_loops_are_cut_from_the_source(framework) -> None:
    """Each line stands in `train_window`, as deep as it is shown, in this order."""
    loops = [body for language, body in BLOCKS if language == "python" and "def " not in body]
    assert len(loops) == len(FRAMEWORKS)
    source = (ROOT / f"{framework}_impl" / "training.py").read_text()
    (function,) = re.findall(r"^def train_window\(.*?\n(?=\n\n)", source, re.M | re.S)
    lines = iter(function.splitlines())
    shown = loops[FRAMEWORKS.index(framework)].splitlines()
    assert 6 <= len(shown) <= 10
    missing = [line for line in shown if f"    {line}" not in lines]
    assert not missing


def test_the_port_and_the_check_are_as_they_are_shown(tmp_path, monkeypatch) -> None:
    """The port stands there whole; what the check prints of it, with lines left out."""
    (port,) = [body for language, body in BLOCKS if body.startswith("# my_port.py\n")]
    (shown,) = [body for language, body in BLOCKS if body.startswith("my_port.py makes")]
    monkeypatch.chdir(tmp_path)
    Path("my_port.py").write_text(port)
    printed = iter(str(lockstep.check("my_port.py")).splitlines())
    missing = [line for line in shown.splitlines() if line not in printed]
    assert not missing
    assert len(shown.splitlines()) == 6


def test_the_catalogue_is_as_large_as_is_said() -> None:
    assert f"which of {len(names())} mistakes" in README


def test_the_diagnosis_is_as_good_as_was_measured() -> None:
    measured = json.loads((ROOT / "benchmarks" / "diagnosis.json").read_text())
    single, clean = measured["single"], measured["clean"]
    said = f"{single['right']} of {single['trials']} are named; of {clean['trials']} runs of right"
    assert f"{said} ports, {clean['trials'] - clean['right']} are called wrong." in README
