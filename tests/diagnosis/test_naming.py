"""The search on trajectories of the oracle: no port is driven."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from lockstep import mistakes
from lockstep.diagnosis import naming
from lockstep.diagnosis.forms import UNNAMED, forms_of, used
from lockstep.diagnosis.naming import Run, common, diagnose
from lockstep.diagnosis.probes import Probe, probes
from lockstep.diagnosis.replay import Replays, agrees, in_floats, merged, replays
from lockstep.oracle.loop import STAGES, Place, Stages

NAMES = mistakes.names()


def runs(
    stages: Stages, unread: tuple[str, ...] = (), asked: Sequence[Probe] | None = None
) -> list[Run]:
    """What a loop does on the probes, and what it says that it never reads."""
    each = ((probe, Replays(probe, stages).quick) for probe in asked or probes())
    return [
        Run(probe, found, unread=tuple(name for name in used(probe.problem) if name in unread))
        for probe, found in each
        if found is not None
    ]


def together(*names: str) -> Stages:
    """The loop with all these mistakes, each in its first form."""
    whole: Stages | None = STAGES
    for name in names:
        assert whole is not None
        whole = merged(whole, forms_of(name)[0].stages)
    assert whole is not None
    return whole


def test_what_is_never_read_is_known_beforehand() -> None:
    unread = ("max_norm", "decay_bias", "example_weights")
    stages = together("clip-ignored", "wd-on-bias", "weights-ignored", "divide-twice")
    found = diagnose(runs(stages, unread))
    assert not found.left
    assert set(found.explanations[0].names) == {
        "clip-ignored", "wd-on-bias", "weights-ignored", "divide-twice",
    }  # fmt: skip


def test_what_is_never_read_and_right_is_no_finding() -> None:
    assert diagnose(runs(STAGES, ("max_norm",))).same
    found = diagnose(runs(together("no-divide", "weights-ignored"), ("example_weights",)))
    assert {*found.explanations[0].names} == {"no-divide", "weights-ignored"}


@pytest.mark.parametrize(
    ("name", "suspects"),
    [
        # Each is twice another, or another and rounding: but on what is right, they are not.
        ("mean-of-means", ["ragged"]),
        ("zero-only-if-updated", ["skip"]),
    ],
)
def test_two_names_that_undo_each_other_are_none(name, suspects) -> None:
    done = runs(mistakes.load(name).stages)
    assert [each.names for each in diagnose(done).explanations] == [(name,)]
    found = diagnose(done, [each for each in NAMES if each != name])
    assert found.unknown
    assert found.suspects == suspects


@pytest.mark.parametrize(
    "names",
    [
        # Each alone does the same to the first probes, and both are there.
        ("missing-zero-grad", "momentum-one"),
        # The second makes the first look like a mistake that explains the first probes by itself.
        ("momentum-one", "opt-state-per-epoch", "adam-eps-inside"),
        # Both are about what a window's micro-batches count for.
        ("leftover-leaks", "divide-twice", "mean-over-outputs"),
        ("stale-first-window", "divide-twice", "wd-on-bias"),
        ("wd-order", "sign-flipped", "divide-by-wrong-count"),
        ("reuse-one-microbatch", "leftover-leaks"),
        # Each is about the optimizer's state, which the last makes anew.
        ("bias-correction-per-microstep", "opt-state-per-epoch"),
        ("bias-step-off-by-one", "opt-state-per-epoch"),
        # Both are of rounding size, and show at once.
        ("float32-settings", "low-precision-accumulator"),
    ],
)
def test_differences_that_meet_are_all_named(names) -> None:
    found = diagnose(runs(together(*names)))
    assert not found.left
    assert {*found.explanations[0].names} == {*names}


def test_a_replay_that_is_left_in_the_middle_leaves_numpy_as_it_was() -> None:
    before = np.geterr()
    updates = in_floats(probes()[0].problem, STAGES)
    next(updates)
    assert np.geterr() == before


def test_a_replay_that_fails_does_so_whenever_it_is_asked() -> None:
    def fails(at: Place) -> bool:
        if at.window:
            raise ZeroDivisionError
        return STAGES.boundary(at)

    probe = next(each for each in probes() if each.name == "windows")
    right = replays(probe).quick
    for first in (True, False):
        failing = Replays(probe, replace(STAGES, boundary=fails))
        if first:
            assert not failing.resembles(right)
        assert failing.quick is None
        assert not failing.resembles(right)
        assert len(failing.made) == 1 < len(right)


@pytest.mark.parametrize(
    ("name", "family"),
    [("biases never decay", "decay"), ("schedule goes on after its end", "schedule")],
)
def test_what_people_do_and_nobody_calls_a_mistake_is_described(name, family) -> None:
    (form,) = (form for form in UNNAMED if form.name == name)
    assert form.mistake.family == family, "the gallery's table places it by that"
    short = [
        replace(each, problem=replace(each.problem, schedule=replace(schedule, updates=4)))
        for each in probes()
        if (schedule := each.problem.schedule) is not None
    ]
    found = diagnose(runs(form.stages, asked=short if family == "schedule" else probes()))
    assert [each.names for each in found.explanations] == [(name,)]
    assert not found.left


def test_a_search_ends_when_its_budget_is_spent(monkeypatch) -> None:
    found = runs(together("clip-ignored", "no-divide"))
    assert not diagnose(found).unknown
    monkeypatch.setattr(naming, "BUDGET", 0)
    spent = diagnose(found)
    assert spent.unknown
    assert spent.left


def test_what_must_differ_is_an_ingredient_or_a_stage() -> None:
    every = runs(STAGES)
    assert common(every, {"clip", "clip-hard", "clip-adam", "loss-scale"}) == ["clip"]
    assert common(every, {"rates", "linear"}) == ["rates"], "no ingredient of both, but a stage"
    assert common(every, {"adam", "rmsprop"}) == ["rule"]
    assert common(every, {"plain"}) == []
    assert common(every, set()) == []


def test_updates_that_are_not_finite_are_the_same() -> None:
    fine, nan = np.ones((2, 2)), np.array([[1.0, np.nan], [np.inf, 2.0]])
    assert agrees(nan, -nan, 0.0)
    assert agrees(fine, fine, 0.0)
    assert not agrees(fine, nan, np.inf)
    assert not agrees(nan, fine, np.inf)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_loop_without_a_bound_is_none_to_part_from(wrong) -> None:
    (run,) = (each for each in runs(together("no-divide")) if each.probe.name == "windows")
    beside = Replays(run.probe, mistakes.load("divide-twice").stages)
    plain = beside.careful
    assert plain is not None
    parted = naming.part_of(run, beside)
    assert parted.first.expected != naming.part_of(run).first.expected
    bounds = [np.full_like(each, wrong) for each in plain.bounds]
    vars(beside)["careful"] = replace(plain, bounds=bounds)
    assert naming.part_of(run, beside) == naming.part_of(run)


def test_what_is_accepted_is_held_in_the_form_that_fits_best() -> None:
    forms = forms_of("wd-on-bias")
    assert len(forms) > 1
    done = runs(forms[1].stages)
    assert not all(run.same for run in done)
    accepted, notes = naming.accepting(done, ["wd-on-bias"])
    assert all(run.same for run in accepted)
    assert not notes
    right, notes = naming.accepting(runs(STAGES), ["clip-epsilon"])
    assert not all(run.same for run in right)
    assert notes == {"clip-epsilon: accepted, but more is right without"}
    assert replace(right[0], reference=STAGES).same
