"""The probes that fit a port, what is accepted and what is required."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import lockstep as command
from plain_port import train as right

from lockstep.diagnosis import check, policy, verdict
from lockstep.diagnosis.fitting import (
    CHOICES,
    WINDOWS,
    alone,
    narrowed,
    supported_values,
    supported_windows,
    together,
)
from lockstep.diagnosis.probes import probes
from lockstep.problem import Problem
from lockstep.problem.settings import ProblemError

SOURCE = Path(__file__).with_name("plain_port.py").read_text()


def refusing(train: Callable[[Problem], Any], refuses: Callable[[Problem], bool]) -> Any:
    """A port that refuses more than another."""

    def narrow(problem):
        if refuses(problem):
            raise NotImplementedError("not here")
        return train(problem)

    return narrow


def uneven(problem: Problem) -> bool:
    """Whether micro-batches differ, or an epoch has a partial window."""
    sizes = {len(x) for x, _ in problem.micro_batches}
    return len(sizes) > 1 or len(problem.micro_batches) % problem.accumulation_steps > 0


def clips_each(problem: Problem):
    """The plain port, but that it clips each micro-batch's gradient."""
    source = SOURCE.replace("sums[0] += x.T @ error", "each = [x.T @ error, error.sum(axis=0)]")
    source = source.replace(
        "                sums[1] += error.sum(axis=0)\n",
        "                norm = np.sqrt(sum((g**2).sum() for g in each))\n"
        "                most = problem.max_norm or np.inf\n"
        "                sums = [s + g * min(1.0, most / norm) for s, g in zip(sums, each)]\n",
    )
    assert source.count("for s, g in zip") == 1
    names: dict[str, Any] = {}
    exec(source.replace("if problem.max_norm is not None", "if False"), names)
    return names["train"](problem)


def test_a_port_of_whole_windows_is_asked_all_the_rest() -> None:
    found = check(refusing(right, uneven))
    assert found.verdict == "same", str(found)
    names = {run.probe.name.partition(".")[0] for run in found.diagnosis.runs}
    assert names >= {"plain", "windows", "rates", "clip", "adam", "clip-adam", "together"}
    assert found.uncovered("adam") == "", "asked in whole windows"
    assert verdict.headline(found) == (
        "takes the same update in all that it supports: Adam and SGD, with several micro-batches"
        " an update, learning rates that change and clipping; not looked at: ragged windows,"
        " partial windows"
    )


def test_what_such_a_port_does_otherwise_is_found() -> None:
    assert check(refusing(clips_each, lambda _: False)).verdict == "differs"
    found = check(refusing(clips_each, uneven))
    assert found.verdict == "differs"
    assert found.diagnosis.suspects == ["clip"]


def test_one_optimizer_alone_is_asked_for_all_that_goes_with_it() -> None:
    found = check(refusing(right, lambda p: uneven(p) or p.optimizer.name != "adam"))
    assert found.verdict == "same", str(found)
    assert {"clip", "rates", "windows", "adam"} <= found.asked
    assert "sgd" not in found.asked


def test_a_port_that_is_asked_in_its_windows_alone_is_known_by_its_framework(port) -> None:
    refuses = (
        "    settings = problem.optimizer\n",
        "    settings = problem.optimizer\n"
        "    if problem.optimizer.name != 'adam' or len({len(x) for x, _ in"
        " problem.micro_batches}) > 1:\n"
        "        raise NotImplementedError('Adam and equal micro-batches alone')\n",
    )
    found = check(port(refuses, ("import numpy as np\n", "import numpy as np\nimport torch\n")))
    assert found.verdict == "same", str(found)
    assert not any(run.probe in probes() for run in found.diagnosis.runs)
    assert found.framework == "pytorch"


def test_what_yields_nothing_on_a_few_probes_differs() -> None:
    """It is no broken port: it takes no update there."""

    def train(problem):
        if uneven(problem):
            raise NotImplementedError
        if problem.optimizer.name != "adam":
            yield from right(problem)

    found = check(train)
    assert found.verdict == "differs", str(found)
    assert not found.failures


def test_the_order_of_probes_hangs_on_no_hash() -> None:
    script = (
        "from lockstep.diagnosis.fitting import alone, together\n"
        "from lockstep.diagnosis.probes import probes\n"
        "some = [p for p in probes() if not {'drop', 'carry'} & p.ingredients]\n"
        "print([p.name for make in (alone, together) for p in make(some)])\n"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "3")
    }
    assert len(said) == 1


def test_each_two_things_that_a_port_supports_meet() -> None:
    every = [*probes(), *alone(probes())]
    every += together(every)
    known = [probe.ingredients for probe in every]
    values = supported_values(every)
    count = 0
    assert values["windows"] == ["partial", "carry", "drop"]
    for windows in values["windows"]:
        assert all(
            any(WINDOWS[windows].ingredients | {needed} <= each for each in known)
            for choices in CHOICES.values()
            for needed in choices.values()
            if needed
        )
    for one, other in combinations(CHOICES, 2):
        for first, second in product(values[one], values[other]):
            needed = {CHOICES[one][first], CHOICES[other][second]} - {""}
            assert any(needed <= each for each in known), needed
            count += len(needed) == 2
    assert count == 32
    assert len(values["optimizer"]) == 10
    assert {rule.name for rule in values["optimizer"] if rule.momentum} == {"sgd", "rmsprop"}
    for rule in values["optimizer"]:
        meets = [p.ingredients for p in every if p.problem.optimizer.name == rule.name]
        assert any("decay" in each for each in meets)
        for name in CHOICES:
            for value in values[name]:
                assert any(CHOICES[name][value] in {"", *each} for each in meets), (rule, value)


def test_a_probe_in_whole_windows_is_about_the_same() -> None:
    (clip,) = (probe for probe in probes() if probe.name == "clip-adam")
    for windows, left_out in (
        ("equal", {"ragged"}), ("ragged", {"partial"}), ("windows", {"ragged", "partial"}),
    ):  # fmt: skip
        asked = narrowed(clip, windows)
        assert asked is not None
        assert asked.ingredients == clip.ingredients - left_out
        assert asked.problem.max_norm == clip.problem.max_norm
    assert uneven(clip.problem)
    assert not uneven(narrowed(clip, "windows").problem)
    drop = next(probe for probe in probes() if probe.name == "drop")
    assert narrowed(drop, "windows") is None, "without partial windows, nothing is dropped"
    assert "drop" in narrowed(drop, "equal").ingredients


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ([], ["plain"]),
        (["plain", "equal"], ["equal"]),
        (["ragged", "partial", "carry"], ["partial", "carry"]),
        (["windows", "equal drop"], ["equal", "equal drop"]),
    ],
)
def test_the_fullest_windows_that_a_port_supports(asked, said) -> None:
    probe = probes()[0]
    supported = [replace(probe, ingredients=WINDOWS[name].ingredients) for name in asked]
    supported += [] if asked else [replace(probe, ingredients=frozenset())]
    assert list(supported_windows(supported)) == said


@pytest.mark.parametrize(
    ("required", "missing"),
    [(["clip"], []), (["adamw"], ["adamw"]), (["all"], []), (["groups", "adam"], ["groups"])],
)
def test_what_is_required_is_looked_at_or_missing(required, missing) -> None:
    found = check(right, require=required)
    assert found.missing == missing
    assert (found.verdict, found.status) == (("incomplete", 3) if missing else ("same", 0))
    if missing:
        assert "; required and not looked at: " in verdict.headline(found)
        with pytest.raises(AssertionError, match="required and not looked at"):
            found.assert_same_update()


EPSILON = ("problem.max_norm / norm", "problem.max_norm / (norm + 1e-6)")


@pytest.fixture
def port(tmp_path: Path) -> Callable[..., str]:
    def make(*changes: tuple[str, str]) -> str:
        source = SOURCE
        for old, new in changes:
            assert old in source
            source = source.replace(old, new)
        (tmp_path / "my_port.py").write_text(source)
        return str(tmp_path / "my_port.py")

    return make


def test_what_is_accepted_is_part_of_the_loop(port) -> None:
    assert check(port(EPSILON)).diagnosis.explanations[0].names == ("clip-epsilon",)
    found = check(port(EPSILON), accept=["clip-epsilon"])
    assert found.verdict == "same", str(found)
    assert verdict.headline(found) == "takes the same update; accepted: clip-epsilon"
    found = check(port(EPSILON, ("/ examples\n", "/ len(x)\n")), accept=["clip-epsilon"])
    assert found.diagnosis.explanations[0].names == ("no-divide",)
    assert "no-divide; accepted: clip-epsilon" in verdict.headline(found)


def test_what_is_accepted_and_not_done_is_told(port) -> None:
    found = check(port(), accept=["clip-epsilon"])
    assert found.verdict == "differs"
    assert "clip-epsilon: accepted, but more is right without" in found.notes


def test_a_port_is_held_against_float32(port) -> None:
    single = (".astype(problem.dtype)", ".astype('f4').astype(problem.dtype)")
    assert check(port(single)).verdict == "differs"
    found = check(port(), dtype="float32")
    assert (found.verdict, found.dtype) == ("same", "float32")
    assert all(run.trajectory[0].dtype == np.float32 for run in found.diagnosis.runs)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"accept": ["nonsense"]}, "nonsense: no such mistake"),
        ({"require": ["nonsense"]}, "nonsense: no such ingredient"),
        ({"dtype": "float16"}, "float16: no such dtype"),
        ({"accept": ["clip-epsilon", "clip-by-value"]}, "these cannot all be accepted"),
    ],
)
def test_what_cannot_be_asked_is_told(asked, said) -> None:
    with pytest.raises(ProblemError, match=said):
        check(right, **asked)


def test_a_project_sets_what_every_check_asks(port, tmp_path) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text('[tool.lockstep]\naccept = ["clip-epsilon"]\nrequire = ["adamw"]\n')
    (tmp_path / "inside").mkdir()
    asked = {"accept": ["clip-epsilon"], "require": ["adamw"]}
    assert policy(tmp_path) == policy(tmp_path / "inside") == asked
    port(EPSILON)
    done = command("check", "my_port.py", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "required and not looked at: AdamW" in done.stdout
    done = command("check", "my_port.py", "--require", "clip,adam", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "takes the same update; accepted: clip-epsilon" in done.stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tool.lockstep]\naccpt = []\n", "accpt: no such key"),
        ('[tool.lockstep]\naccept = "clip-epsilon"\n', "accept must be a list of names"),
        ("[tool.lockstep]\nrequire = [1]\n", "require must be a list of names"),
        ("[tool.lockstep]\ndtype = 32\n", "dtype must be a name"),
        ("[tool.lockstep\n", "pyproject.toml: "),
        ("tool = 3\n", "tool must be a table"),
        ("[tool]\nlockstep = 3\n", "tool.lockstep must be a table"),
    ],
)
def test_a_project_that_asks_wrongly_is_told(text, said, tmp_path) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(ProblemError, match=said):
        policy(tmp_path)


@pytest.mark.parametrize("probe", probes(), ids=lambda probe: probe.name)
def test_a_probe_has_the_ingredients_of_its_problem(probe) -> None:
    problem, has = probe.problem, probe.ingredients
    assert ("decay" in has) == (problem.optimizer.weight_decay > 0)
    assert ("clip" in has) == (problem.max_norm is not None)
    assert ("groups" in has) == (not problem.decay_bias)
    assert ("schedule" in has) == (problem.schedule is not None)
    assert ("rates" in has) == (problem.learning_rates is not None)
    assert ("weights" in has) == (problem.example_weights is not None)
    assert ("scale" in has) == (problem.loss_scale is not None)
    assert problem.optimizer.name == "sgd" or problem.optimizer.name in has
    sizes = {len(x) for x, _ in problem.micro_batches}
    assert ("ragged" in has) == (len(sizes) > 1)
    partial = len(problem.micro_batches) % problem.accumulation_steps > 0
    assert partial or "partial" not in has


def test_windows_have_just_the_ingredients_that_they_say() -> None:
    assert len(WINDOWS) == 9
    for name, each in WINDOWS.items():
        has = {
            "windows": each.steps > 1,
            "ragged": len(set(each.sizes)) > 1,
            "partial": len(each.sizes) % each.steps != 0,
            each.policy: each.policy != "apply",
        }
        assert {ingredient for ingredient, there in has.items() if there} == each.ingredients, name
