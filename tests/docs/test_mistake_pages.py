"""The mistakes' pages: complete, and made of numbers that are measured again.

Those of the reference loop here, each framework's where its diff is planted: test_mistakes.py.
"""

import json
import re
from fractions import Fraction
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("sphinx")

from docs import plots, record_mistakes
from docs._ext import mistake_pages
from docs.record_mistakes import same
from lockstep import mistakes
from lockstep.frameworks import FRAMEWORKS, NAMES

KNOWN = mistakes.names()
MEASURED = record_mistakes.load()["mistakes"]
# What this framework's optimizer can be made to do by mistake shows on other probes alone.
UNSEEN = {("l2-vs-decoupled", "tensorflow")}
SECTIONS = (
    *("What goes wrong", "What it looks like in numbers", "The coefficient matrix"),
    *("Where it leads", "The diff", "How far off it is", "Confused with", "Public threads"),
)
MAX_BYTES = 30_000


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mistakes")
    mistake_pages.make(folder)
    return folder


def test_everything_was_measured() -> None:
    assert tuple(MEASURED) == KNOWN
    for name, found in MEASURED.items():
        able = [each for each in FRAMEWORKS if each not in mistakes.load(name).impossible]
        assert list(found["distances"]) == ["reference", *able]
        for framework, distances in found["distances"].items():
            differs = mistake_pages.first_differing(distances) is not None
            assert differs != ((name, framework) in UNSEEN)


@pytest.mark.parametrize("name", KNOWN)
def test_the_reference_gives_the_numbers_again(name) -> None:
    recorded = MEASURED[name]
    distances = {"reference": recorded["distances"]["reference"]}
    assert same(
        record_mistakes.by_reference(name, recorded["form"]), recorded | {"distances": distances}
    )


def test_a_number_that_is_off_is_seen() -> None:
    recorded = MEASURED["no-divide"]
    text = json.dumps(recorded)
    assert same(recorded, json.loads(text))
    for number in ("0.329", "0.486", "6.96"):
        assert not same(recorded, json.loads(text.replace(number, str(float(number) * 1.02), 1)))


@pytest.mark.parametrize("name", KNOWN)
def test_a_page_has_all_its_sections(made, name) -> None:
    page = (made / f"{name}.md").read_text()
    assert tuple(re.findall(r"^## (.+)$", page, re.MULTILINE)) == SECTIONS
    mistake = mistakes.load(name)
    for framework, label in NAMES.items():
        shown = re.search(rf":::{{region}} The diff of the [a-z ]+ in {label}\n", page)
        assert bool(shown) != (framework in mistake.impossible)
    assert page.count('<table class="matrix">') == (2 if MEASURED[name]["coefficients"] else 0)
    assert all(address in page for address, _ in mistake.evidence)
    assert all(f"- `{other}`." in page for other in mistake.look_alikes)
    for file in plots.files(made / name).values():
        assert f"{{image}} {file.name}\n:alt: " in page
        assert 1000 < file.stat().st_size < MAX_BYTES


# Safeguards, low precision, weights, decay groups and schedules: the plain loop has none of them.
OF_THE_RECIPE = {
    *("zero-only-if-updated", "weights-ignored", "weights-not-in-denominator", "wd-on-bias"),
    *("skipped-microbatch-counted", "skipped-microbatch-replaced", "unscale-per-microbatch"),
    *("clip-scaled-grads", "clip-per-microbatch", "clip-epsilon", "clip-each-microgradient"),
    *("clip-ignored", "clip-per-tensor", "clip-by-value", "clip-the-update", "nonfinite-zeroed"),
    *("sched-per-microstep", "sched-per-epoch", "sched-with-skipped-window", "sched-off-by-one"),
    *("keras-schedule-counts-microsteps", "schedule-ignored", "sched-too-slow"),
    *("momentum-lr-placement", "optax-nan-poison"),
}


def test_the_plain_loops_diff_is_shown_where_the_plain_loop_can_make_the_mistake(made) -> None:
    pages = {name: (made / f"{name}.md").read_text() for name in KNOWN}
    assert {name for name in KNOWN if not MEASURED[name]["plain"]} == OF_THE_RECIPE
    lacking = {name for name in KNOWN if "The plain loop has nothing that this" in pages[name]}
    assert lacking == OF_THE_RECIPE
    shown = {name for name in KNOWN if "The diff of the plain loop in" in pages[name]}
    assert not shown & lacking
    assert len(shown) == 44
    for name, page in pages.items():
        plain, _, recipe = page.partition('<details class="recipe">')
        files = set(re.findall(r"^diff (\w+)\.py$", plain, re.MULTILINE))
        assert files
        if name in shown:
            assert not files & {"recipe", "window", "safeguards", "progress", "state"}
        else:
            assert not recipe
        whole = "".join(mistakes.diff(name, framework) for framework in FRAMEWORKS)
        assert page.count("\n@@\n") == whole.count("\n@@ ")


@pytest.mark.parametrize("name", KNOWN)
def test_a_pages_numbers_are_those_that_were_measured(made, name) -> None:
    page = (made / f"{name}.md").read_text()
    rows = {
        label: [cell.strip() for cell in cells.split("|")]
        for label, cells in re.findall(r"^\| (\w+) \| (.*) \|$", page, re.MULTILINE)
    }
    assert set(rows) == {"framework", *NAMES.values()}
    for framework, label in NAMES.items():
        distances = MEASURED[name]["distances"].get(framework)
        if distances is None:
            assert rows[label] == ["cannot be made here", "", ""]
            continue
        if (name, framework) in UNSEEN:
            assert rows[label] == ["none on this probe", "", ""]
            continue
        first = int(rows[label][0])
        assert not any(distances[: first - 1])
        for cell, distance in zip(rows[label][1:], (distances[first - 1], distances[-1])):
            if distance is None:
                assert cell == "not finite"
            else:
                assert float(cell) == pytest.approx(distance, rel=0.05)


def test_no_weight_is_a_decimal_beside_a_fraction(made) -> None:
    cells = 0
    for name in KNOWN:
        _, _, rest = (made / f"{name}.md").read_text().partition("## The coefficient matrix\n")
        section = rest.partition("\n## ")[0]
        weights = re.findall(
            r"(?<![\d./])\d+(?:/\d+|\.\d+)?(?![\d./])", re.sub(r"--w.*?>", ">", section)
        )
        cells += section.count("</td>")
        for weight in weights:
            fraction = Fraction(weight).limit_denominator(36)
            assert "." not in weight or abs(Fraction(weight) - fraction) > fraction / 100, name
    assert cells > 1000


def test_the_overview_names_every_mistake_and_sets_libraries_apart(made) -> None:
    page = (made / "index.md").read_text()
    mistakes_, libraries = page.split("## What libraries do\n")
    assert tuple(re.findall(r"^\| `([\w-]+)` \|", mistakes_, re.MULTILINE)) == KNOWN
    rows = re.findall(r"^\| `([\w-]+)` \|", libraries, re.MULTILINE)
    others = [name for name in KNOWN if mistakes.load(name).kind != "mistake"]
    assert sorted(rows) == sorted(others)


def test_every_mistake_is_below_its_family(made) -> None:
    below: list[str] = []
    for family in mistakes.FAMILIES:
        page = (made / f"{family}.md").read_text()
        rows = re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE)
        toctree = page.partition("```{toctree}\n:hidden:\n\n")[2].split("\n```")[0].split("\n")
        assert rows == toctree == [n for n in KNOWN if mistakes.load(n).family == family]
        below += rows
    assert tuple(below) == KNOWN
    index = (made / "index.md").read_text()
    assert index.endswith("\n".join(["", *mistakes.FAMILIES, "```\n"]))


SYMPTOMS = {
    "missing-zero-grad": ["update 1 right, update 2 wrong", "loss grows"],
    "no-divide": ["update 1 wrong", "reported loss too high by K", "gradient too high by K"],
    "divide-twice": ["update 1 wrong", "gradient too low by K"],
    "rate-times-k": ["update 1 wrong", "gradient too high by K"],
    "sign-flipped": ["update 1 wrong", "gradient has the wrong sign", "loss grows"],
    "logged-loss-divided": ["every update right", "reported loss too low by K"],
    "half-loss": ["update 1 wrong", "reported loss too low by 2", "gradient too low by 2"],
    "leftover-dropped": [
        *("2 updates right, update 3 wrong", "too few updates", "seen with: partial windows")
    ],
    "never-updates": ["update 1 wrong", "gradient is 0"],
    "clip-ignored": ["update 1 wrong", "right under plain SGD", "seen with: clipping"],
}


def test_symptoms_are_what_was_measured(made) -> None:
    page = (made / "index.md").read_text()
    for name, symptoms in SYMPTOMS.items():
        assert mistake_pages.symptoms(MEASURED[name]) == symptoms
        assert re.search(rf"^\| `{name}` \| .* \| {'; '.join(symptoms)} \|$", page, re.MULTILINE)
        assert f"Measured: {'; '.join(symptoms)}.\n" in (made / f"{name}.md").read_text()
    for name in KNOWN:
        found = mistake_pages.symptoms(MEASURED[name])
        assert len(set(found)) == len(found)
    wrong = MEASURED["no-divide"] | {"factors": {"update": [1, 1.5, 1.0], "loss": [1, 3.0, 3.0]}}
    assert mistake_pages.symptoms(wrong) == [
        *("update 1 wrong", "reported loss wrong", "gradient in another direction")
    ]


def test_what_is_made_again_is_the_same_and_is_not_written(made, tmp_path) -> None:
    before = {file.name: file.stat().st_mtime_ns for file in made.iterdir()}
    mistake_pages.make(made)
    assert {file.name: file.stat().st_mtime_ns for file in made.iterdir()} == before
    stem = tmp_path / "no-divide"
    plots.save(mistake_pages.plot(MEASURED["no-divide"]), stem)
    for file in plots.files(stem).values():
        assert file.read_bytes() == (made / file.name).read_bytes()
