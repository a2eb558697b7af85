"""The report in words, of findings that are made up: no port is driven."""

import numpy as np
import pytest

from lockstep import mistakes
from lockstep.diagnosis import Diagnosis, Report, verdict
from lockstep.diagnosis.forms import forms_of
from lockstep.diagnosis.matrix import correct_matrix
from lockstep.diagnosis.naming import Explanation, Part, Run
from lockstep.diagnosis.probes import FEATURES, OUTPUTS, TARGET, TINY_RATE, probes
from lockstep.diagnosis.verdict import Failure, Line
from lockstep.oracle.compare import Divergence
from lockstep.oracle.loop import STAGES

PROBES = {each.name: each for each in probes()}


def run(name: str, updates: int = 1) -> Run:
    return Run(PROBES[name], [np.zeros((FEATURES + 1, OUTPUTS))] * updates)


def part(name: str) -> Part:
    return Part(PROBES[name], 6, 6, Divergence(2, "W", (0, 1), 1.0, 1.5, 7), 0.25)


def explanations(*names: tuple[str, ...], differing: tuple[str, ...] = ()) -> list[Explanation]:
    forms = [tuple(forms_of(name)[0] for name in each) for each in names]
    return [Explanation(each, STAGES, differing) for each in forms]


def report(runs=(), parts=(), differing=None, found=(), **more) -> Report:
    diagnosis = Diagnosis(
        [run(name) for name in runs], [part(name) for name in parts], differing or {}, found
    )
    return Report("port.py:train", diagnosis, **more)


@pytest.mark.parametrize(
    ("found", "said", "status"),
    [
        (report(["plain"]), "same", 0),
        (report(["plain"], required=("adam",)), "incomplete", 3),
        (report(["plain", "adam"], required=("adam",)), "same", 0),
        (report(["plain"], ["plain"]), "differs", 1),
        (report(["plain"], differing={"plain": ["loss"]}), "differs", 1),
        (report(["plain"], ["plain"], failures={"clip": Failure("it hangs")}), "differs", 1),
        (report(["plain"], failures={"clip": Failure("it hangs")}), "broken", 2),
        (report(), "broken", 2),
    ],
)
def test_the_verdict_and_its_status(found, said, status) -> None:
    assert (found.verdict, found.status) == (said, status)
    if said == "same":
        return found.assert_same_update()
    with pytest.raises(
        AssertionError, match=r"^port.py:train\nport.py:train (differs|is broken|.*required)"
    ):
        found.assert_same_update()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "differs, and none of the known mistakes explains it"),
        ([("no-divide",)], "makes a known mistake: no-divide"),
        ([("clip-epsilon",)], "follows another policy: clip-epsilon"),
        ([("rmsprop-variant",)], "does what its library does: rmsprop-variant"),
        (
            [("no-divide",), ("clip-epsilon",)],
            "makes a known mistake: no-divide or clip-epsilon",
        ),
        ([("no-divide",)] * 4, "makes a known mistake: no-divide" + " or no-divide" * 3),
        (
            [("no-divide",)] * 5,
            "makes a known mistake: no-divide" + " or no-divide" * 3 + " or another",
        ),
        ([("no-divide", "clip-epsilon")], "differs in two ways: no-divide and clip-epsilon"),
        (
            [("no-divide", "clip-epsilon")] * 2,
            "differs in two ways: no-divide and clip-epsilon, or 1 other set that no probe"
            " separates",
        ),
        (
            [("no-divide", "clip-epsilon")] * 3,
            "differs in two ways: no-divide and clip-epsilon, or 2 other sets that no probe"
            " separates",
        ),
    ],
)
def test_a_headline_of_what_was_found(names, said) -> None:
    assert verdict.headline(report(["plain"], ["plain"], found=explanations(*names))) == said


def test_a_headline_of_what_was_not() -> None:
    every = ["ragged", "partial", "rates", "clip"]
    assert verdict.headline(report(every)) == "takes the same update"
    assert verdict.headline(report(["adam-decay", "weights"])) == (
        "takes the same update in all that it supports: Adam and SGD, with several micro-batches"
        " an update, ragged windows, partial windows and weighted examples; not looked at: learning"
        " rates that change, clipping, decay of W alone"
    )
    assert verdict.headline(report(every, required=("clip", "lion", "groups"))) == (
        "takes the same update in all that it supports: SGD, with several micro-batches an update,"
        " ragged windows, partial windows, learning rates that change and clipping;"
        " required and not looked at: Lion, decay of W alone"
    )
    assert verdict.headline(report()) == "is broken, as a port"


def test_a_failure_in_words() -> None:
    assert str(Failure("it breaks")) == "it breaks"
    silent = Failure("it says nothing", "port.py:3", "silent", ("tired", "\x1b"))
    assert str(silent) == (
        "it says nothing (port.py:3): it hangs, or needs a longer --timeout\n  | tired\n  | \\x1b"
    )
    assert "jax_enable_x64" in str(Failure("float32", kind="dtype"))


def test_what_was_compared_in_a_line() -> None:
    runs = [run("plain", 100), run("windows", 2)]
    found = Report(
        "port", Diagnosis(runs, [part("plain")], {}, []), {"adam": "no", "clip": "no"},
        dtype="float32", framework="jax",
    )  # fmt: skip
    assert found.compared == 102 * 24
    assert verdict.covered(found) == (
        "JAX, float32: 2 probes, 2 448 numbers compared with their rounding bound,"
        " 1 probes differ, 2 not covered"
    )
    assert verdict.covered(report(["plain"])) == (
        "float64: 1 probes, 24 numbers compared with their rounding bound, 0 probes differ"
    )


def test_what_was_not_covered_and_why() -> None:
    found = report(
        ["plain", "windows", "ragged"], ["windows"], {"ragged": ["loss"]},
        refused={"adam": "SGD alone", "lion": "SGD alone", "clip": "no clipping"},
    )  # fmt: skip
    assert found.uncovered("plain") == ""
    assert found.uncovered("lion") == "SGD alone"
    assert found.uncovered("clip") == "no clipping"
    assert found.uncovered("together") == "it supports nothing that could meet"
    assert (
        report(["plain"], failures={"together.1": Failure("it hangs")}).uncovered("together") == ""
    )
    fails = [name for name in ("plain", "windows", "ragged", "lion") if found.fails(name)]
    assert fails == ["windows", "ragged", "lion"]
    assert list(verdict.lines(found))[-3:] == [
        Line("\nnot covered", "aside"),
        Line("  adam, lion: SGD alone", "aside"),
        Line("  clip: no clipping", "aside"),
    ]


def test_a_report_tells_failures_and_notes_and_no_more() -> None:
    failures = {name: Failure("it hangs") for name in ("clip", "adam", "lion", "wide", "rates")}
    found = report(
        ["plain"], differing={"plain": ["loss", "gradient"]}, notes=["yield a copy"],
        failures=failures | {"drop": Failure("no")},
    )  # fmt: skip
    assert list(verdict.lines(found)) == [
        Line("port.py:train differs, and none of the known mistakes explains it", "verdict"),
        Line(verdict.covered(found), "aside"),
        Line("plain: the parameters are right, but not loss, gradient", "differs"),
        Line("clip, adam, lion, wide and 1 more: it hangs", "warning"),
        Line("drop: no", "warning"),
        Line("note: yield a copy", "warning"),
    ]
    assert str(found) == "".join(f"{line.text}\n" for line in verdict.lines(found))
    assert list(verdict.lines(report())) == [Line("port.py:train is broken, as a port", "verdict")]


def test_a_mistake_is_explained_and_mended() -> None:
    (found,) = explanations(("no-divide",), differing=("loss", "gradient"))
    lines = list(verdict.explained(report(framework="pytorch"), found, 60))
    mistake = mistakes.load("no-divide")
    assert lines[:2] == [
        Line(f"\nno-divide: {mistake.title}", "heading"),
        Line("  replaces weigh of the reference loop", "aside"),
    ]
    prose = [line.text for line in lines if not line.kind]
    assert " ".join(row.strip() for row in prose) == mistake.explanation
    assert all(row.startswith("  ") and 40 < len(row) <= 60 for row in prose[:-1])
    assert Line("  what mends it, in pytorch_impl:", "aside") in lines
    diff = [line.text for line in lines if line.kind == "diff"]
    assert diff[0] == "  +++ b/pytorch_impl/training.py"
    assert (len(diff), diff[-1]) == (24, "  ... and 17 lines more")
    assert lines[-2:] == [
        Line("  lockstep mistakes no-divide    all that is known of it", "aside"),
        Line("  it does not explain what the port yields as loss, gradient", "warning"),
    ]
    (alone,) = explanations(("no-divide",))
    kinds = [line.kind for line in verdict.explained(report(), alone, 60)]
    assert "diff" not in kinds
    assert "warning" not in kinds


def test_an_explanation_fills_its_width_and_breaks_no_word() -> None:
    (found,) = explanations(("tape-none-dropped",))
    widths = {}
    for width in range(40, 80):
        lines = list(verdict.explained(report(), found, width))
        assert lines[1].text == "  replaces normalise, rule of the reference loop"
        rows = [line.text for line in lines if not line.kind]
        assert not any(row.endswith("-") for row in rows)
        widths[width] = max(map(len, rows))
    assert all(widest <= width for width, widest in widths.items())
    assert any(widest == width for width, widest in widths.items())


def test_a_diff_that_fits_is_whole() -> None:
    rows = [f"+{number}" for number in range(24)]
    assert verdict.first_lines("\n".join(["diff a", "--- a", *rows])) == rows
    longer = verdict.first_lines("\n".join([*rows, "+24"]))
    assert longer == [*rows[:23], "... and 2 lines more"]


def test_only_the_first_explanations_and_parts_are_told_at_length(monkeypatch) -> None:
    monkeypatch.setattr(verdict, "separation", lambda *_: "")
    wrong = ["plain", "windows", "ragged", "epochs", "partial", "rest"]
    names = [
        "no-divide",
        "clip-epsilon",
        "half-loss",
        "mean-of-means",
        "rate-times-k",
        "apply-every",
    ]
    found = report(wrong, wrong, found=explanations(*((name,) for name in names)))
    text = verdict.text(found).splitlines()
    assert [sum(row.startswith(f"{name}: ") for row in text) for name in names] == [1] * 4 + [0] * 2
    assert "no probe separates these 6:" in text
    assert sum(row.startswith("  no-divide from ") for row in text) == 4
    start = text.index("where it first differs")
    assert text[start + 1] == (
        "  one micro-batch an update: update 2, W[0, 1]: 1.5 instead of 1.0, +5.0e-01 or 7 ULP,"
        " 2.5e-01 of the largest"
    )
    assert text[start + 5 : start + 7] == [
        "  and on partial, rest",
        "  what must differ: already with one micro-batch of plain SGD an update",
    ]
    heading, *four = verdict.parted(report(wrong[:4], wrong[:4]))
    assert heading == Line("\nwhere it first differs", "heading")
    assert not any(line.text.startswith("  and on") for line in four)


def test_four_names_are_told_in_full() -> None:
    assert verdict.few(["a", "b", "c", "d"]) == "a, b, c, d"
    assert verdict.few(["a", "b", "c", "d", "e", "f"]) == "a, b, c, d and 2 more"


def test_what_separates_two_explanations_is_asked_of_probes_and_then_of_the_catalogue(
    monkeypatch,
) -> None:
    asked = []

    def separation(first, other, runs, rest):
        asked.append([each.name for each in rest])
        return "yield loss" if other.names == ("half-loss",) else ""

    monkeypatch.setattr(verdict, "separation", separation)
    names = [
        ("no-divide",),
        ("half-loss",),
        ("rate-times-k",),
        ("clip-epsilon", "float32-settings"),
    ]
    found = report(["plain"], found=explanations(*names))
    assert list(verdict.apart(found)) == [
        "\nno probe separates these 4:",
        "  no-divide from half-loss: yield loss",
        "  no-divide from rate-times-k: the gradient that the port yields: there it is right",
        "  no-divide from clip-epsilon + float32-settings: nothing known here",
    ]
    assert asked[0] == [name for name in PROBES if name != "plain"]
    assert list(verdict.apart(report(found=explanations(("no-divide",))))) == []
    two = explanations(("no-divide", "clip-epsilon"), ("half-loss",))
    assert list(verdict.apart(report(found=two))) == [
        "\nno probe separates these 2:",
        "  no-divide + clip-epsilon from half-loss: yield loss",
    ]


def test_what_the_catalogue_says_of_two_is_told_in_either_order() -> None:
    one, other = explanations(("no-divide",), ("missing-zero-grad",))
    assert "no-divide" not in mistakes.load("missing-zero-grad").look_alikes
    assert verdict.told(one, other) == verdict.told(other, one) == "update 1: there it is right"


@pytest.mark.parametrize(
    ("runs", "parts", "said"),
    [
        (["plain", "windows"], ["plain"], "already with one micro-batch of plain SGD an update"),
        (["plain", "clip", "epochs", "ragged"], ["clip"], "clipping"),
        (["plain", "epochs", "adamax", "rest"], ["adamax"], "the optimizer's rule (adamax)"),
        (["rest", "linear"], ["linear"], "which learning rate an update takes"),
        (
            ["rest", "groups"],
            ["groups"],
            "the optimizer's rule (adamw); weight decay; weight decay of W alone",
        ),
        (["rest", "clip"], ["rest", "clip"], "what happens between epochs"),
        (["windows", "epochs"], [], ""),
    ],
)
def test_what_must_differ(runs, parts, said) -> None:
    found = verdict.stage_words(report(runs, parts))
    assert found.startswith(said)
    assert bool(found) == bool(said)
    if len(parts) == 1:
        assert found == said


def with_weights(matrix: np.ndarray) -> Report:
    """A port whose coefficient matrix is this one."""
    trajectory = np.zeros((len(matrix), FEATURES + 1, OUTPUTS))
    trajectory[:, :FEATURES] = 2 * TARGET * TINY_RATE * np.cumsum(matrix, axis=0)[:, :, None]
    runs = [run("plain"), Run(PROBES["coefficients"], list(trajectory))]
    return Report("port", Diagnosis(runs, [part("coefficients")], {}, []))


def test_the_matrix_is_shown_below_its_words() -> None:
    found = with_weights(correct_matrix(PROBES["coefficients"].problem) * 12)
    assert found.matrix is not None
    assert found.matrix[1].name == "coefficients"
    said = list(verdict.parted(found))
    assert said[-9:] == [
        Line("  every micro-batch of a window enters with 12 times its weight"),
        Line("  every micro-batch of a partial window enters with 12 times its weight"),
        Line("  update  m1  m2  m3  m4  m5  m6  m7", "aside"),
        Line("       1   4   4   4   ·   ·   ·   ·"),
        Line("       2   ·   ·   ·   4   4   4   ·"),
        Line("       3   ·   ·   ·   ·   ·   ·  12"),
        Line("       4   4   4   4   ·   ·   ·   ·"),
        Line("       5   ·   ·   ·   4   4   4   ·"),
        Line("       6   ·   ·   ·   ·   ·   ·  12"),
    ]


def test_no_matrix_is_shown_where_it_says_nothing() -> None:
    right = with_weights(correct_matrix(PROBES["coefficients"].problem))
    assert right.words == []
    broken = with_weights(np.full((6, 7), np.nan))
    assert broken.words == ["the parameters become infinite, or not a number"]
    without = report(["plain"], ["plain"])
    assert (without.matrix, without.words) == (None, [])
    for found in (right, broken, without):
        assert not any("m1" in line.text for line in verdict.parted(found))


def test_a_report_is_of_float64_and_of_no_framework_unless_told() -> None:
    found = report()
    assert (found.dtype, found.framework, found.notes) == ("float64", "", ())
