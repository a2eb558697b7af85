"""What the benchmark plants is what it says, and what it calls right is."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import judging, planting, subsets
from benchmarks.planting import Port
from benchmarks.reading import Change, otherwise
from lockstep import mistakes
from lockstep.diagnosis import Diagnosis, diagnose
from lockstep.diagnosis.forms import unread
from lockstep.diagnosis.probes import OPTIMIZERS, probes
from lockstep.workers import ports

PROBES = {each.name: each for each in probes()}
FEW = [PROBES[name] for name in ("plain", "windows", "ragged", "clip", "rates", "amsgrad")]


def said(catalogue: list[str], *names: str) -> Diagnosis:
    stages = planting.together([mistakes.load(name).stages for name in names])
    assert stages is not None
    return diagnose(list(planting.replayed(stages, FEW)), catalogue)


@pytest.mark.parametrize(
    ("change", "find", "expected"),
    [
        (Change("optimizer.amsgrad", "plain"), lambda p: p.optimizer.amsgrad, False),
        (Change("optimizer.eps", "float32"), lambda p: p.optimizer.eps, float(np.float32(0.01))),
        (Change("optimizer.eps", 0.5, "sgd"), lambda p: p.optimizer.eps, 0.01),
        (Change("optimizer.betas", "nine tenths"), lambda p: p.optimizer.betas, (0.45, 0.54)),
        (Change("max_norm", 3.0), lambda p: p.max_norm, None),
    ],
)
def test_a_setting_is_read_otherwise(change, find, expected) -> None:
    problem = PROBES["amsgrad"].problem
    found = otherwise(problem, [change])
    assert find(found) == expected
    assert find(replace(found, epochs=1)) == expected
    assert len(found.windows) == problem.updates


def test_a_setting_that_is_ignored_is_never_read() -> None:
    handed, read = ports.watched(PROBES["amsgrad"].problem)
    found = otherwise(handed, [Change("optimizer.amsgrad", "plain")])
    assert vars(found.optimizer)["eps"] == OPTIMIZERS["amsgrad"][1].eps
    assert found.optimizer.amsgrad is False
    assert "optimizer.amsgrad" in unread(PROBES["amsgrad"].problem, read)
    assert "optimizer.eps" not in unread(PROBES["amsgrad"].problem, read)


def test_changes_are_merged_unless_they_meet() -> None:
    assert planting.merge("a\nb\nc\n", ["A\nb\nc\n", "a\nb\n", "a\nb\nc\n"]) == "A\nb\n"
    assert planting.merge("a\nb\n", ["x\nb\n", "y\nb\n"]) is None


def test_two_mistakes_are_planted_in_one_folder(tmp_path) -> None:
    port = Port("pytorch", ("missing-zero-grad", "clip-epsilon"))
    assert port.possible
    assert port.plant(tmp_path, 3) == "planted_3.recipe"
    text = "".join(file.read_text() for file in (tmp_path / "planted_3").glob("*.py"))
    plain = "".join(planting.source("", "pytorch").values())
    assert text != plain
    assert not Port("pytorch", ("apply-every",)).possible


def test_a_difference_is_hidden_where_the_port_does_the_same_without() -> None:
    assert planting.hides(Port("jax", ("never-updates", "clip-epsilon")), None, FEW)
    assert not planting.hides(Port("jax", ("no-divide", "clip-ignored")), None, FEW)


def test_a_mistake_that_is_withheld_is_told_by_its_stage_or_not_at_all() -> None:
    rest = [name for name in mistakes.names() if name != "clip-by-value"]
    assert judging.withheld(said(rest, "clip-by-value"), "clip-by-value") == "right"
    assert judging.withheld(said(rest, "clip-by-value"), "schedule-ignored") == "neither"
    assert judging.withheld(said(["clip-ignored"], "clip-ignored"), "no-divide") == "wrong"
    assert judging.withheld(said(rest, "clip-ignored"), "clip-by-value") == "right"


def test_a_mistake_in_a_port_that_supports_little_is_seen_by_what_it_supports() -> None:
    trials = subsets.Trials(1)
    everything = subsets.Subset(
        frozenset(subsets.FEATURES), frozenset(subsets.OPTIMIZERS), subsets.WINDOWS[0]
    )
    assert not any(trials.same(form, everything) for form, _ in trials.draw(20))
