"""`lockstep trace --html`: what the page says, that it needs nothing else, whom it overwrites."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from written import write_trace

from lockstep.trace import Finding, check_trace, compare_traces
from lockstep.trace.words import text
from lockstep.views.trace import html

NUMBERS = np.random.default_rng(0)
VALUES = {
    "<b>hidden</b>.weight": NUMBERS.standard_normal((5, 4)),
    "hidden.bias": NUMBERS.standard_normal(5),
    "head.weight": NUMBERS.standard_normal((3, 5)),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [
        write_trace(folder / "right", VALUES),
        write_trace(folder / "<i>port</i>", VALUES, weights=(1.0, 0.0)),
    ]


def words(page: str) -> str:
    """What a person reads of a page."""
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL).split())


def test_the_verdict_comes_first_then_where_they_part(runs):
    found = compare_traces(*runs)
    assert found.names == ("micro-batches left out",), found.findings
    said = words(html(found))
    places = [
        said.index(each)
        for each in (
            "ways" if len(found.findings) > 1 else "differs from",
            "Rounding: up to",
            "Where they part.",
            "update 1 stage accumulation first seen in the gradient of a micro-batch",
            "micro-batch 2 of 2 enters no update",
            "With which weight each micro-batch enters each update",
            "Which parameter is which",
            "hidden.bias hidden.bias as it is",
            "Not looked at",
        )
    ]
    assert places == sorted(places)


def test_each_weight_has_its_number_and_a_colour_by_it(runs):
    found = compare_traces(*runs)
    page = html(found)
    cells = re.findall(
        r'<li class="(\w+)" style="--share: ([\d.]+)"><small>(m\d)</small>(.*?)<', page
    )
    assert cells[:2] == [("right", "0.0", "m1", "1"), ("less", "0.45", "m2", "0")]
    assert len(cells) == len(found.pairs)
    assert "0 is left out" in page
    again = compare_traces(runs[0], runs[0])
    assert "Here each enters as it should." in html(again)


def test_whatever_stands_in_a_name_is_text(runs):
    page = html(compare_traces(*runs))
    for name in ("<b>hidden</b>.weight", "<i>port</i>"):
        assert name not in page
        assert name.replace("<", "&lt;").replace(">", "&gt;") in page


def test_policies_what_is_left_and_lost_parameters_stand_apart(runs):
    found = compare_traces(*runs)
    policy = Finding("clip-epsilon", "clip", "it adds 1e-6", 1, ("head.weight",), "clipped", True)
    lost = replace(found.matching, left=("lost",), other_left=("other",), nearest={"lost": "other"})
    page = html(replace(found, findings=[policy], left=["nobody knows why"], matching=lost))
    said = words(page)
    assert said.index("nobody knows why") < said.index("Policies of a library")
    assert "What &lt;i&gt;port&lt;/i&gt; does otherwise" not in page
    assert "lost no counterpart nearest: other" in said
    assert "no counterpart other" in said
    assert "What the catalogue knows of it" in said
    place = replace(policy, modules=("block.<b>", "block/b"), others=("no-clip",))
    said = words(html(replace(found, findings=[place])))
    assert "modules block.&lt;b&gt; , block/b" in said
    assert "or no-clip, which these updates do not tell from it" in said


def test_a_run_alone_has_a_page_without_pairs(runs):
    said = words(html(check_trace(runs[0])))
    assert "does what its settings say" in said
    assert "Which parameter is which" not in said
    assert "whether a window is the mean of its examples" in said


def test_the_page_needs_nothing_else(runs):
    page = html(compare_traces(*runs))
    assert page.startswith("<!doctype html>\n<!-- written by lockstep trace -->\n")
    for outside in ("src=", "<link", "url(", "<script", "@import"):
        assert outside not in page


def test_an_input_is_never_written_over(runs, tmp_path):
    command = [sys.executable, "-m", "lockstep.cli", "trace", *runs, "--html"]
    for file in sorted(each for run in runs for each in run.iterdir()):
        before = file.read_bytes()
        done = subprocess.run([*command, file], capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert "--html" in done.stderr
        assert file.read_bytes() == before
    for _ in range(2):  # its own report it replaces
        done = subprocess.run([*command, tmp_path / "found.html"], capture_output=True, text=True)
        assert done.returncode == 1, done.stderr
    assert "micro-batches left out" in (tmp_path / "found.html").read_text()


def test_it_fits_narrow_and_wide_screens_in_both_themes(runs, tmp_path):
    driver = pytest.importorskip("playwright.sync_api")
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium here")
    found = compare_traces(*runs)
    long = "/".join(["decoder"] * 30)
    many = tuple(f"{long}{index}" for index in range(30))
    said = Finding("eps-default", "rule", f"eps is another one in {long}", 2, many, "after")
    pairs = [replace(found.pairs[0], micro_batch=index) for index in range(70)]
    file = tmp_path / "found.html"
    file.write_text(html(replace(found, findings=[*found.findings, said], pairs=pairs)))
    with driver.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for width in (390, 768, 1440):
            for scheme in ("light", "dark"):
                page = browser.new_page(
                    viewport={"width": width, "height": 900}, color_scheme=scheme
                )
                page.goto(file.as_uri())
                page.evaluate(
                    "document.querySelectorAll('details').forEach(each => each.open = true)"
                )
                assert page.evaluate("document.documentElement.scrollWidth") == width
                violations = axe.Axe().run(page).response["violations"]
                assert not violations, (width, scheme, [each["id"] for each in violations])
        browser.close()


def test_numbers_without_a_counterpart_are_told_on_the_page_and_in_the_report(tmp_path):
    whole = {name: array for name, array in VALUES.items() if array.ndim == 2}
    more = NUMBERS.standard_normal((1, 5))
    longer = whole | {"head.weight": np.concatenate([whole["head.weight"], more])}
    found = compare_traces(write_trace(tmp_path / "a", whole), write_trace(tmp_path / "b", longer))
    assert "5 numbers of head.weight of the other run have no counterpart" in found.left
    assert "no counterpart of 5 numbers head.weight" in words(html(found))


def test_a_micro_batch_that_the_first_run_leaves_out_has_no_weight_beside_the_right_one(tmp_path):
    first = write_trace(tmp_path / "a", VALUES, weights=(1.0, 0.0))
    found = compare_traces(first, write_trace(tmp_path / "b", VALUES))
    assert ["1", "1", "none"] in map(str.split, text(found).splitlines())
    assert "m2 none" in words(html(found))


def test_the_files_are_written_before_the_report_is_read(runs, tmp_path):
    """A reader that wants the first lines alone closes the pipe."""
    reading, writing = os.pipe()
    os.close(reading)
    page, report = tmp_path / "page.html", tmp_path / "report.json"
    command = [sys.executable, "-m", "lockstep.cli", "trace", *map(str, runs)]
    done = subprocess.run([*command, "--html", page, "--json", report], stdout=writing)
    os.close(writing)
    assert (done.returncode, page.exists(), report.exists()) == (141, True, True)
