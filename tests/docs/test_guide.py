"""The guide: its tables and plots show what is measured, and its answers are all there."""

import json
import re

import pytest
from conftest import ROOT

pytest.importorskip("matplotlib")

from benchmarks import accumulation
from docs import guide_plots, plots, record_guide
from lockstep.diagnosis.probes import probes
from lockstep.experiments.zeroing import LEARNING_RATES, MISTAKE, UPDATES
from lockstep.frameworks import FRAMEWORKS
from lockstep.mistakes import load
from lockstep.oracle import loop
from lockstep.problem import iris_sgd
from lockstep.source.columns import CONCEPTS

DOCS = ROOT / "docs"
PAGES = ("zero_grad", "accumulation", "identical", "speed")
TEXT = {page: (DOCS / f"{page}.md").read_text() for page in PAGES}
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("place", "table"), record_guide.tables().items())
def test_a_table_shows_what_was_measured(place, table) -> None:
    page, name = place
    text = (DOCS / page).read_text()
    assert record_guide.with_table(text, name, table) == text
    assert len(table.splitlines()) > 5


def test_what_was_measured_is_measured_again(all_workers) -> None:
    """Losses and bounds to the digits recorded; errors, which depend on the machine, by size."""
    known, found = record_guide.load(), record_guide.record(all_workers)
    compared = 0
    for old, new in zip(known["zeroing"], found["zeroing"], strict=True):
        assert old["learning_rate"] == new["learning_rate"]
        for kind in ("zeroed", "never zeroed"):
            assert old[kind].keys() == new[kind].keys()
            for name, losses in old[kind].items():
                assert new[kind][name] == pytest.approx(losses, rel=1e-3)
                compared += len(losses)
    for dtype, old in known["rounding"].items():
        new = found["rounding"][dtype]
        assert new["bounds"] == pytest.approx(old["bounds"], rel=1e-3)
        assert all(new["inside"].values())
        assert new["compared"] == old["compared"] == dict.fromkeys(all_workers, 450)
        for name, errors in old["errors"].items():
            assert max(new["errors"][name]) < 10 * max(errors)
            compared += len(errors)
    assert compared == 2 * 2 * 3 * 40 + 2 * 3 * 30


def test_an_epsilon_in_the_clip_coefficient_is_outside_in_float64_alone() -> None:
    measured = record_guide.load()["rounding"]
    assert measured["float64"]["clip-epsilon outside"] == 450
    assert measured["float32"]["clip-epsilon outside"] == 0


def brightness(colour: str) -> float:
    """The relative luminance of the WCAG."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(share * c for share, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


PAPER = {"light": "#ffffff", "dark": "#131416"}


@pytest.mark.parametrize("theme", PAPER)
def test_a_plot_is_legible_on_both_pages(theme) -> None:
    looks = {look.colour for look in (plots.RIGHT, plots.WRONG, *plots.FRAMEWORKS.values())}
    assert len(looks) == 3
    for colour, least in [(plots.INK[theme], 4.5), *((each, 3.0) for each in looks)]:
        dark, light = sorted(map(brightness, (colour, PAPER[theme])))
        assert (light + 0.05) / (dark + 0.05) >= least


def test_every_plot_is_shown_and_told_in_words(tmp_path) -> None:
    guide_plots.make(tmp_path)
    first = {file.name: file.read_text() for file in tmp_path.iterdir()}
    images = re.findall(r"\{image\} _plots/([\w.]+)\n:alt: (.*)", "".join(TEXT.values()))
    assert {name for name, _ in images} == set(first)
    assert all(len(words.split()) > 20 for _, words in images)
    assert all("fill: #ffffff" not in text for text in first.values()), "transparent"
    for file in tmp_path.iterdir():
        file.unlink()
    guide_plots.make(tmp_path)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == first


def test_the_losses_without_zeroing_are_the_oracles() -> None:
    rows = re.findall(r"^ +(\d+)((?: +\d+\.\d{4}){4})$", TEXT["zero_grad"], re.M)
    columns = []
    for learning_rate in LEARNING_RATES:
        problem = iris_sgd(accumulation_steps=1, updates=UPDATES, learning_rate=learning_rate)
        for stages in (loop.STAGES, load(MISTAKE).stages):
            trajectory = loop.trajectory(problem, stages=stages)
            columns.append([loop.loss(theta, problem) for theta in trajectory])
    assert len(rows) == 8
    for update, numbers in rows:
        expected = [f"{column[int(update) - 1]:.4f}" for column in columns]
        assert numbers.split() == expected


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_table_of_concepts_says_what_their_comments_say(framework) -> None:
    rows = re.findall(r"^\| (\w+) \|(.*)\|$", TEXT["zero_grad"], re.M)
    table = {name: cells.split("|") for name, cells in rows if name in CONCEPTS}
    assert tuple(table) == CONCEPTS
    column = FRAMEWORKS.index(framework)
    concepts: list[str] = []
    for concept, cells in table.items():
        if cells[column].strip() == "↑":
            concepts[-1] += f" + {concept}"
        else:
            concepts.append(concept)
    source = (ROOT / f"{framework}_impl" / "training.py").read_text()
    assert concepts == re.findall(r"# ([a-z]+(?: \+ [a-z]+)?): ", source)


def test_the_checks_page_counts_the_problems() -> None:
    assert f"with {len(probes())} small problems" in (DOCS / "check.md").read_text()


def test_all_fourteen_statements_have_a_run() -> None:
    _, answers = TEXT["zero_grad"].split("## The well-known answers")
    items = re.split(r"^### (\d+)\. ", answers, flags=re.MULTILINE)[1:]
    assert items[::2] == [str(number) for number in range(1, 15)]
    headings = re.findall(r"^## (.+)$", TEXT["zero_grad"], re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}
    for item in items[1::2]:
        sections = re.findall(r"\]\(#([\w-]+)\)", item)
        assert "```text" in item or sections
        assert set(sections) <= anchors


@pytest.mark.parametrize("page", PAGES)
def test_never_a_bare_step(page) -> None:
    assert not re.findall(r"(?<!time )(?<!micro-)\bsteps?\b(?!-)", CODE.sub("", TEXT[page]))


def test_the_benchmark_times_the_same_update(monkeypatch) -> None:
    for name, value in (("EXAMPLES", 32), ("FEATURES", 5), ("OUTPUTS", 2)):
        monkeypatch.setattr(accumulation, name, value)
    losses = {}
    for k in (1, 4):
        for name in accumulation.TITLES:
            update = accumulation.updater(name, k)
            losses[name, k] = [update() for _ in range(3)]
    assert len(losses) == 8
    (first, *others) = losses.values()
    assert first[0] > first[1] > first[2]
    assert all(each == pytest.approx(first, rel=1e-5) for each in others)


def test_the_benchmark_has_every_ratio() -> None:
    report = json.loads(accumulation.FILE.read_text())
    assert set(report["ratios"]) == set(accumulation.TITLES)
    for found in report["ratios"].values():
        assert list(map(int, found)) == list(accumulation.STEPS)
        assert found["1"] == 1
