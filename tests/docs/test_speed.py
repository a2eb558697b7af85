"""The speed benchmark: all do the same work, and its tables say what was measured."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from benchmarks import device, goals, limit, measuring, peers
from benchmarks.__main__ import parsed
from benchmarks.peers import FAST, PRODUCTS
from docs._ext import gallery_pages
from lockstep.frameworks import FRAMEWORKS

STEPS = 3


def contestants(framework: str) -> dict:
    makers = import_module(f"benchmarks.peers.{framework}").CONTESTANTS
    # PyTorch's fast form takes most of a minute to compile.
    left_out = (*measuring.MULTIPLIED, *([FAST] if framework == "pytorch" else []))
    makers = {name: make for name, make in makers.items() if name not in left_out}
    makers |= import_module("benchmarks.peers.numpy").CONTESTANTS
    return measuring.made(makers, peers.problem((4, 3), STEPS))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_all_take_the_same_update(framework) -> None:
    """In a process of its own, which has no other framework in it."""
    code = f"import test_speed; test_speed.require_the_same_update({framework!r})"
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr


def require_the_same_update(framework: str) -> None:
    """Whether all loops of a framework end in the same parameters."""
    given, found = peers.problem((4, 3), STEPS), contestants(framework)
    first = measuring.started(found, [given.W, given.b])
    assert set(first) == set(found)
    ours = {peers.BY_HAND, peers.READABLE, "NumPy"}
    if framework == "pytorch":  # whose others are libraries, which may not be installed
        libraries = {"Accelerate": "accelerate", "Fabric": "lightning"}
        assert set(first) - ours == {name for name, each in libraries.items() if find_spec(each)}
    else:
        assert ours < set(first)
    assert ours <= set(first)
    for each in found.values():
        assert each.seconds(2) > 0
    waited, wait = [], device.waiting(framework)
    if framework == "pytorch":  # which waits for a GPU alone
        wait = peers.nothing
    copying = device.copying(framework, 1 << 10)
    assert device.until_computed(copying, lambda: waited.append(wait())).seconds(2) > 0
    assert waited == [None, None]
    # Three windows later too, save where Keras corrects biases in another order.
    if framework != "tensorflow":
        after = {name: each.parameters() for name, each in found.items()}
        measuring.require_same(after, [given.W, given.b])


@pytest.mark.parametrize("change", ["no last micro-batch", "a sum instead of a mean"])
def test_who_takes_another_update_is_found(change) -> None:
    given, make = peers.problem((4, 3), STEPS), import_module("benchmarks.peers.numpy").plain
    if change == "no last micro-batch":
        other = replace(given, micro_batches=given.micro_batches[:-1], accumulation_steps=2)
    else:
        root = np.sqrt(STEPS)
        other = replace(
            given,
            W=given.W / root,
            micro_batches=[(x * root, y * root) for x, y in given.micro_batches],
        )
    found = {peers.BY_HAND: make(given), "another": make(other)}
    with pytest.raises(AssertionError, match="another: another update"):
        measuring.started(found, [given.W, given.b])


def test_contestants_take_turns_and_each_is_first() -> None:
    order = []
    found = {name: peers.Contestant(lambda name=name: order.append(name)) for name in "abc"}
    for each in found.values():
        object.__setattr__(each, "block", lambda n, each=each: [each.window(), 1.0][1])
    counted = measuring.rounds(found, 4, 60)
    assert "".join(order) == "abc" + "abc" + "bca" + "cab" + "abc"
    assert {len(each) for each in counted.values()} == {4}
    assert all(len(each) == 3 for each in measuring.rounds(found, 9, 0).values())


def test_quartiles_are_those_of_the_ratios() -> None:
    seconds = {"a": [1.0, 2.0, 3.0], "b": [2.0, 2.0, 2.0], PRODUCTS: [1.0, 1.0, 1.0]}
    assert measuring.beside("a", seconds) == {"b": [0.75, 1.0, 1.25]}


def test_the_traffic_is_counted() -> None:
    assert limit.moved(1, 100) == 700
    assert limit.moved(4, 100) == 700 + 3 * 300
    copy = limit.Copy(1 << 20, 2)
    assert sum(len(a) for part in copy.arrays for a in part) == limit.ARRAYS << 20
    assert copy.bytes == 2 * limit.ARRAYS * (1 << 20) * copy.repeats
    assert copy.contestant().seconds(1) > 0


def cell(**changed) -> dict:
    ratios = {peers.BY_HAND: [0.9, 1.0, 1.1], limit.LIMIT: [1.0, 1.2, 1.3], "NumPy": [3, 4, 5]}
    found = {
        "framework": "jax", "threads": 1, "size": [4, 3], "steps": 8, "fast": ratios,
        "readable": ratios, "first": {FAST: 2.0, peers.BY_HAND: 1.0},
        "micro-batch": {FAST: [1e-6, 2e-6, 3e-6]},
    }  # fmt: skip
    return found | changed


def report(*cells) -> dict:
    peak = {"framework": "jax", "contestant": FAST, "peak": {"1": 100, "64": 105}}
    return {"cells": cells, "memory": [peak], "start-up": {"jax": 1.5}, "system": {"CPU": "a"}}


@pytest.mark.parametrize(
    ("cells", "row"),
    [
        ([cell()], "each other loop | | | 1.00 of 1.02: reached, 1/1"),
        ([cell()], "one thread | | | 4.00 of 0.550: missed, 0/1"),
        ([cell(threads=2)], "one thread | | | |"),
        ([cell()], "larger sizes | | | |"),
        ([cell(size=[512, 256])], "larger sizes | | | 1.20 of 1.25: reached, 1/1"),
        ([cell()], "by hand | | | 1.00 of 1.10: reached, 1/1"),
        ([cell()], "K = 64 / K = 1 | | | 1.05 of 1.05: reached, 1/1"),
        ([cell(steps=4), cell(steps=64)], "K = 64 / K = 4 | | | 1.00 of 1.00: reached, 1/1"),
        ([cell(), cell(fast={"Accelerate": [1, 2, 3]})], "loop | | | 2.00 of 1.02: missed, 1/2"),
        ([cell(fast={"Fabric": [1, 0.3, 3]})], "at 4x3 | | | 0.300 of 0.333: reached, 1/1"),
    ],
)
def test_a_goal_is_reached_when_every_ratio_is_within_it(cells, row) -> None:
    table = goals.goals_table(report(*cells))
    assert row in " ".join(table.split())


def test_the_tables_show_medians_and_quartiles() -> None:
    tables = goals.tables(report(cell()))
    assert "| 1 | 4x3 | 8 | 2.00 | 1.00 (0.900 to 1.10) | 1.20 (1.00 to 1.30)" in tables["jax"]
    assert "JAX | fast.py | 1.50 | 2.00 to 2.00" in tables["starts"]


def test_a_cost_is_shown_where_it_was_timed() -> None:
    costs = goals.costs(report(cell(), cell(threads=2), cell(steps=4)), "jax", FAST)
    assert costs == ["2.00"]
    assert goals.costs(report(cell()), "jax", "Fabric") == []
    timed = json.loads(goals.FILE.read_text())
    for stem, contestant in gallery_pages.TIMED.items():
        (each,) = (f for f in FRAMEWORKS if goals.costs(timed, f, contestant))
        rows = dict(gallery_pages.costs(stem, f"{stem}.py", each))
        assert list(rows) == [f"as in {stem}.py", "the readable loop", "the fast form"]
        assert {len(row) for row in rows.values()} == {len(goals.SHOWN)}


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0123456, "0.0123"), (1.005, "1.00"), (12.34, "12.3"), (1234.5, "1234")]
)
def test_numbers_have_three_digits(value, shown) -> None:
    assert goals.number(value) == shown


def test_what_is_committed_has_everything() -> None:
    found = json.loads(goals.FILE.read_text())
    assert set(found["start-up"]) == set(FRAMEWORKS)
    assert {each["framework"] for each in found["memory"]} == set(FRAMEWORKS)
    for framework in FRAMEWORKS:
        timed = [each for each in goals.cells(found, framework) if each["threads"] == 1]
        assert {tuple(each["size"]) for each in timed} == set(peers.EXAMPLES)
        assert {1, 4, 64} <= {each["steps"] for each in timed}
        assert all(FAST in each["micro-batch"] for each in timed)


def test_options_are_all_unless_chosen() -> None:
    everything, some = parsed([]), parsed(["--quick", "--framework", "jax", "--size", "4x3"])
    assert everything.framework == list(FRAMEWORKS)
    assert everything.threads == [1, 2]
    assert everything.rounds > some.rounds
    assert (some.framework, some.size) == (["jax"], ["4x3"])
    with pytest.raises(SystemExit, match="2"):
        parsed(["--device", "gpu"])  # whose numbers are not the page's


def test_a_gpu_that_is_not_there_is_told_in_a_line(tmp_path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks"),
            *("--device", "gpu", "--framework", "jax", "--json", tmp_path / "gpu.json"),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    if done.returncode == 0:
        pytest.skip("a GPU is there, and the benchmark ran on it")
    assert done.stderr.splitlines() == [
        "benchmarks: jax: it sees no GPU: a driver, or its build for GPUs, is missing",
        "benchmarks: jax failed, start-up",
    ]
    assert list(tmp_path.iterdir()) == []
