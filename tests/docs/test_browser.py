"""The side-by-side pages in a real browser: Playwright drives a Chromium, if both are there."""

import html
import json
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from itertools import permutations

import pytest
from conftest import ROOT

from lockstep.frameworks import FRAMEWORKS
from lockstep.source import columns

playwright = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[browser]'")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")

PAGES = ("training", "recipe", "optimizers", "recurrent", "bitwise")
# One page of each kind in the rest of the guide.
OTHERS = (
    *("./index", "./zero_grad", "./identical", "./accumulation", "./check", "./optimizers"),
    *("porting/index", "porting/pytorch-to-jax", "porting/jax-to-tensorflow"),
    *("mistakes/index", "mistakes/zeroing", "mistakes/missing-zero-grad", "optimizers/adamw"),
    *("reference/check", "reference/command", "reference/implementations/training"),
    *("gallery/index", "gallery/fabric_loop"),
)
# Preloading would ask for style sheets, which a browser does not give out under file:. The elements
# that keep a rule are as many as a page has, and nobody reads a list of them.
AXE = {"preload": False, "resultTypes": ["violations"]}
# What stands in boxes of the same kind, seen, has the same contrast, and a page has thousands of
# tokens: axe looks at one of each.
ALIKE = """() => {
    const seen = new Set()
    for (const token of document.querySelectorAll('article span[class]:not(:has(*))')) {
        let look = ''
        for (let box = token; box.tagName != 'ARTICLE'; box = box.parentElement)
            look += '<' + box.tagName + '.' + box.className
        if (!token.checkVisibility() || seen.has(look)) token.replaceWith(token.textContent)
        else seen.add(look)
    }
    return new Promise(after => requestAnimationFrame(() => setTimeout(after, 0, seen.size)))
}"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
WIDTHS = {1440: 900, 1280: 800, 390: 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def tabs(browser) -> tuple[Callable[..., object], list[str]]:
    """A tab for each kind of browser, kept since it costs more than a page, and what went wrong."""
    wrong: list[str] = []

    def note_request(request) -> None:
        if not request.url.startswith(("file:", "data:")):
            wrong.append(f"asks for {request.url}")

    def note_message(message) -> None:
        # furo says so when its theme is switched.
        if not message.text.startswith("Changed to "):
            wrong.append(message.text)

    @cache
    def tab(**kind: bool):
        opened = browser.new_context(
            **kind, permissions=["clipboard-read", "clipboard-write"]
        ).new_page()
        opened.on("request", note_request)
        opened.on("console", note_message)
        opened.on("pageerror", lambda error: wrong.append(str(error)))
        return opened

    return tab, wrong


@pytest.fixture
def visit(tabs, site):
    """Open a page; what it logs, raises or asks the network for fails the test."""
    tab, wrong = tabs

    def open_page(page="training", width=1440, scheme="light", anchor="", script=True, touch=False):
        opened = tab(java_script_enabled=script, has_touch=touch)
        if script and opened.url != "about:blank":
            opened.evaluate("localStorage.clear()")
        opened.goto("about:blank")
        opened.mouse.move(0, 0)
        opened.set_viewport_size({"width": width, "height": WIDTHS[width]})
        opened.emulate_media(color_scheme=scheme)
        file = site / (page if "/" in page else f"read/{page}")
        opened.goto(f"{file.as_uri()}.html{anchor}")
        return opened

    yield open_page
    found = [*wrong]
    wrong.clear()
    assert found == []


def resize(page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": WIDTHS[width]})


def cell(page, framework: str, row: str, unit: str = "train_window"):
    """The cell of a framework that begins in a row."""
    return page.locator(f'.cell[data-framework={framework}][data-anchor="{unit}.{row}"]')


def lit(page) -> set[tuple[str, str]]:
    """The frameworks and rows of the cells that are lit."""
    page.wait_for_timeout(100)
    return {
        (each.get_attribute("data-framework"), each.get_attribute("data-rows"))
        for each in page.locator(".cell.lit").all()
    }


ACCUMULATE = {
    ("pytorch", "gradient accumulate"),
    ("tensorflow", "accumulate"),
    ("jax", "accumulate update"),
}


def boxes(page, unit: str = "train_window") -> dict[str, dict[str, float]]:
    return {
        framework: cell(page, framework, "reset", unit).bounding_box() for framework in FRAMEWORKS
    }


@pytest.mark.parametrize("name", PAGES)
def test_three_columns_without_overflow(visit, name) -> None:
    page = visit(name)
    for width in (1440, 1280):
        resize(page, width)
        assert page.evaluate(OVERFLOW) == 0
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    for width in (1440, 1280):
        resize(page, width)
        fits_in_three_columns(page)


def fits_in_three_columns(page) -> None:
    assert page.evaluate(OVERFLOW) == 0
    tracks = page.locator(".grid").first.evaluate("e => getComputedStyle(e).gridTemplateColumns")
    assert len(tracks.split()) == 3
    wrapped = """() => [...document.querySelectorAll('.cell .line')].filter(line =>
        line.getClientRects().length && line.getBoundingClientRect().height
        > 1.5 * parseFloat(getComputedStyle(line).lineHeight)).length"""
    assert page.evaluate(wrapped) == 0
    assert page.locator(".cell .line").count() > 100


def test_columns_stand_next_to_each_other(visit) -> None:
    found = boxes(visit())
    assert len({box["y"] for box in found.values()}) == 1
    lefts = [found[framework]["x"] for framework in FRAMEWORKS]
    assert lefts == sorted(set(lefts))


def test_a_fused_concept_spans_its_rows(visit) -> None:
    page = visit()
    fused = cell(page, "pytorch", "gradient").bounding_box()
    first = cell(page, "tensorflow", "gradient").bounding_box()
    second = cell(page, "tensorflow", "accumulate").bounding_box()
    assert fused["y"] == pytest.approx(first["y"], abs=1)
    assert fused["height"] == pytest.approx(first["height"] + second["height"], abs=1)


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_stacks_concept_by_concept(visit, name) -> None:
    page = visit(name, 390)
    assert page.evaluate(OVERFLOW) == 0
    if name == "training":
        found = [boxes(page)[framework] for framework in FRAMEWORKS]
        assert [box["y"] for box in found] == sorted({box["y"] for box in found})
        assert len({box["x"] for box in found}) == 1
        after = cell(page, "pytorch", "loop").bounding_box()
        assert after["y"] > found[-1]["y"]


def test_the_mouse_lights_a_concept_in_all_columns(visit) -> None:
    page = visit()
    cell(page, "tensorflow", "accumulate").hover()
    assert lit(page) == ACCUMULATE
    page.mouse.move(2, 2)
    assert lit(page) == set()


def test_a_tap_lights_a_concept(visit) -> None:
    page = visit(width=390, touch=True)
    cell(page, "tensorflow", "accumulate").tap()
    assert lit(page) == ACCUMULATE


def test_keys_move_and_light(visit) -> None:
    page = visit(anchor="#train_window.gradient")
    page.locator(".pinned").first.wait_for()
    assert page.evaluate("document.activeElement.dataset.anchor") == "train_window.gradient"
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.dataset.anchor") == "train_window.accumulate"
    assert ("tensorflow", "accumulate") in lit(page)
    page.keyboard.press("k")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.dataset.anchor") == "train_window.update"
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.dataset.framework") == "pytorch"
    cell(page, "pytorch", "gradient").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.rows") == "forward gradient"
    page.keyboard.press("Enter")
    assert page.url.endswith("#train_window.forward")


def test_keys_go_on_after_what_is_hidden(visit) -> None:
    page = visit(anchor="#train_window.update")
    page.locator(".pinned").first.wait_for()
    page.locator("summary", has_text="train_window").click()
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.dataset.anchor") == "train.signature"


@pytest.mark.parametrize("hidden", ["", "PyTorch"])
def test_tab_reaches_the_code(visit, hidden) -> None:
    page = visit()
    if hidden:
        page.get_by_role("button", name=hidden).click()
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('.cell')"):
            return
    raise AssertionError("no cell in the tab order")


def test_a_click_pins_and_an_address_finds(visit) -> None:
    page = visit()
    cell(page, "tensorflow", "accumulate").click()
    assert page.url.endswith("#train_window.accumulate")
    assert page.locator(".cell.pinned").count() == 3
    page = visit(anchor="#train_window.accumulate")
    page.locator(".pinned").first.wait_for()
    assert lit(page) == ACCUMULATE
    assert page.locator(".cell.pinned").count() == 3
    assert cell(page, "tensorflow", "accumulate").is_visible()
    top = cell(page, "tensorflow", "accumulate").bounding_box()["y"]
    assert 0 <= top < WIDTHS[1440]


@pytest.mark.parametrize(
    ("name", "anchor", "pinned"),
    [
        (
            "training",
            "train_window.gradient",
            {"gradient accumulate", "gradient", "forward gradient"},
        ),
        ("recurrent", "chunk_gradient.accumulate", {"gradient accumulate"}),
        ("training", "micro_gradient", {"body"}),
        ("training", "model.linear_model.signature", {"signature"}),
    ],
)
def test_an_address_pins_what_is_about_its_row(visit, name, anchor, pinned) -> None:
    page = visit(name, anchor=f"#{anchor}")
    page.locator(".pinned").first.wait_for()
    found = page.locator(".cell.pinned")
    assert {each.get_attribute("data-rows") for each in found.all()} == pinned
    assert found.count() == 3
    assert page.url.endswith(f"#{anchor}")


def test_c_copies_the_source(visit) -> None:
    page = visit()
    (unit,) = columns.find("train_window")
    cells = {c.rows: c.source for row in unit.rows for f, c in row.cells.items() if f == "jax"}
    cell(page, "jax", "accumulate").click()
    page.keyboard.press("c")
    page.locator(".said", has_text="copied JAX: accumulate + update").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == cells["accumulate", "update"]


def test_t_switches_the_theme(visit) -> None:
    page = visit()
    background = "getComputedStyle(document.body).backgroundColor"
    seen = {page.evaluate(background)}
    for _ in range(2):
        page.keyboard.press("t")
        seen.add(page.evaluate(background))
    assert len(seen) == 2


@pytest.mark.parametrize("back", ["toggle", "place"])
def test_a_hidden_column_looks_hidden_and_comes_back(visit, back) -> None:
    page = visit()
    there, toggle = cell(page, "tensorflow", "reset"), page.get_by_role("button", name="TensorFlow")
    code, wide = there.locator("pre"), there.bounding_box()["width"]
    looks = "e => [getComputedStyle(e).borderStyle, getComputedStyle(e, '::after').content]"
    shown = toggle.evaluate(looks)
    toggle.click()
    assert not code.is_visible()
    assert toggle.evaluate(looks) == ["dashed", '" hidden"']
    assert shown == ["solid", "none"]
    assert 20 < there.bounding_box()["width"] < 40
    assert "gradient" in there.evaluate("e => getComputedStyle(e).backgroundImage")
    assert there.get_attribute("title") == "TensorFlow is hidden: a click shows it"
    assert cell(page, "pytorch", "reset").bounding_box()["width"] > 1.3 * wide
    (toggle if back == "toggle" else there).click()
    assert code.is_visible()
    assert toggle.evaluate(looks) == shown
    assert there.bounding_box()["width"] == wide
    assert page.locator(".pinned").count() == 0


def test_on_a_phone_a_hidden_column_is_gone(visit) -> None:
    page = visit(width=390)
    page.get_by_role("button", name="TensorFlow").click()
    assert not cell(page, "tensorflow", "reset").is_visible()
    assert page.evaluate(OVERFLOW) == 0


def test_the_loop_is_on_the_first_screen_and_what_comes_before_unfolds(visit) -> None:
    page = visit()
    last = cell(page, "tensorflow", "return").bounding_box()
    assert last["y"] + last["height"] < WIDTHS[1440]
    earlier = cell(page, "jax", "body", "gradient_descent")
    assert not earlier.is_visible()
    page.get_by_text("Before it in the file").click()
    assert earlier.is_visible()
    assert cell(
        visit(anchor="#gradient_descent.body"), "jax", "body", "gradient_descent"
    ).is_visible()


def test_every_empty_cell_says_why_in_a_sentence(visit) -> None:
    found = 0
    for name in PAGES:
        for note in visit(name).locator(".cell.empty .note").all_text_contents():
            assert note[0].isupper()
            assert note.endswith(".")
            assert len(note.split()) > 5
            found += 1
    assert found > 70


def test_two_frameworks_as_a_diff(visit) -> None:
    page = visit()
    page.get_by_label("Diff").select_option("pytorch-jax")
    diff = page.locator('.diff-text[data-pair="pytorch-jax"]:visible').all_inner_texts()
    assert any("-     optimizer.zero_grad()" in text for text in diff)
    assert not page.locator(".grid").first.is_visible()
    sign = page.locator('.diff-text[data-pair="pytorch-jax"]:visible .gd').first.bounding_box()
    assert sign["x"] >= 0
    assert page.evaluate(OVERFLOW) == 0
    page.keyboard.press("j")
    page.keyboard.press("c")
    page.get_by_label("Diff").select_option("")
    assert cell(page, "jax", "reset").is_visible()


def test_a_function_collapses(visit) -> None:
    page = visit()
    page.locator("summary", has_text="train_window").click()
    assert not cell(page, "jax", "reset").is_visible()


def test_the_scenarios_switch(visit) -> None:
    page = visit()
    recorded = json.loads((ROOT / "docs/measured/scenarios.json").read_text())
    assert page.locator(".measured").last.inner_text().count(recorded["date"]) == 1
    for name, found in recorded["scenarios"].items():
        page.get_by_label(name, exact=True).check()
        shown = page.locator(".scenario:visible")
        assert shown.count() == 1
        rows = shown.locator("tbody tr")
        assert rows.count() == len(found["windows"])
        last = rows.last.locator("td").first.inner_text().split()
        wanted = [f"{value:.6f}" for value in found["parameters"]["pytorch"][-1]]
        assert last[:3] == wanted


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [
        *(("training", *rest) for rest in ((1440, "light"), (1280, "dark"), (390, "dark"))),
        ("recipe", 390, "light"),
        ("recurrent", 1280, "light"),
        ("optimizers", 1440, "dark"),
        ("bitwise", 390, "light"),
    ],
)
def test_axe_finds_nothing(visit, name, width, scheme) -> None:
    page = visit(name, width, scheme)
    page.locator(".cell").nth(5).focus()
    require_no_violation(page)


def require_no_violation(page, **options: object) -> None:
    page.evaluate(ALIKE)
    found = axe.Axe().run(page, options=AXE | options)
    assert found.response["passes"], "no rule was held against the page"
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("name", OTHERS)
def test_the_other_pages_fit_and_axe_finds_nothing(visit, name) -> None:
    page = visit(name, 1440, "dark")
    assert page.evaluate(OVERFLOW) == 0
    resize(page, 390)
    assert page.evaluate(OVERFLOW) == 0
    # Sphinx writes a signature of several lines as a list of definitions without terms.
    rules = {"definition-list": {"enabled": not name.startswith("reference/")}}
    require_no_violation(page, rules=rules)


def test_what_begins_to_scroll_can_be_reached_by_key(visit) -> None:
    """Whatever made it wider: no event of the window tells of a font or a picture in a table."""
    table = visit("porting/pytorch-to-jax", 1440).locator(".table-wrapper").first
    assert table.get_attribute("tabindex") is None
    table.locator("td").first.evaluate("cell => { cell.style.minWidth = '4000px' }")
    playwright.expect(table).to_have_attribute("tabindex", "0")
    table.locator("td").first.evaluate("cell => { cell.style.minWidth = '' }")
    playwright.expect(table).not_to_have_attribute("tabindex", "0")


CUT = """() => [...document.querySelectorAll('article pre, article table, .cell')].filter(box =>
    box.scrollWidth > box.clientWidth + 1).length"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_start_page_shows_everything(visit, width, scheme) -> None:
    """The three loops alone, and below them an answer; nothing is cut or scrolls sideways."""
    page = visit("./index", width, scheme)
    assert page.evaluate(OVERFLOW) == 0
    assert page.locator("article pre").count() > 10
    assert page.evaluate(CUT) == 0
    assert page.locator(".columns summary").all_inner_texts() == ["train_window"]
    lefts = {box["x"] for box in boxes(page).values()}
    assert len(lefts) == (1 if width == 390 else 3)
    first = "signature" if width == 390 else "update"
    assert cell(page, "pytorch", first).bounding_box()["y"] < WIDTHS[width]
    cell(page, "tensorflow", "accumulate").hover()
    assert lit(page) == ACCUMULATE
    assert "makes a known mistake" in page.locator(".highlight-console").inner_text()


LONG = (
    *("./zero_grad", "./accumulation", "./identical"),
    *(f"porting/{a}-to-{b}" for a, b in permutations(FRAMEWORKS, 2)),
)


@pytest.mark.parametrize("name", LONG)
def test_a_long_page_has_its_summary_on_the_first_screen(visit, name) -> None:
    page = visit(name)
    box = page.locator(".summary").bounding_box()
    assert page.locator(".summary li").count() >= 4
    assert box["y"] + box["height"] < WIDTHS[1440]
    assert page.locator("article").bounding_box()["height"] > 3 * WIDTHS[1440]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["./check", "./zero_grad", "porting/pytorch-to-jax"])
def test_output_looks_different_from_code_and_is_never_cut(visit, name, scheme) -> None:
    looks = """all => all.map(box => [getComputedStyle(box.querySelector('pre')).backgroundColor,
        getComputedStyle(box).borderLeftWidth])"""
    cut = "all => all.filter(box => box.scrollWidth > box.clientWidth).length"
    page = visit(name, 1440, scheme)
    for width in WIDTHS:
        resize(page, width)
        outputs = page.locator(".highlight-text, .highlight-console")
        code = page.locator("article .highlight-python")
        assert min(outputs.count(), code.count()) > 3
        (look,) = set(map(tuple, outputs.evaluate_all(looks)))
        for other in code.evaluate_all(looks):
            assert all(one != another for one, another in zip(look, other, strict=True))
        assert outputs.locator("pre").evaluate_all(cut) == 0


def test_mistakes_are_found_by_symptom_and_by_word(visit) -> None:
    page = visit("mistakes/index")
    rows = page.locator(".symptoms tbody tr:visible td:first-child")
    every = rows.count()
    assert page.locator(".by-symptom output").inner_text() == f"{every} of {every}"
    page.locator("h1").click()
    while (
        page.evaluate("document.activeElement.parentElement.textContent.slice(0, 7)") != "Updates"
    ):
        page.keyboard.press("Tab")
    page.keyboard.type("update 1 right")
    assert "missing-zero-grad" in rows.all_inner_texts()
    assert 10 < rows.count() < every / 2
    page.get_by_label("Updates", exact=True).select_option("update 1 wrong")
    page.get_by_label("Also", exact=True).select_option("reported loss too high by K")
    assert rows.all_inner_texts() == ["no-divide"]
    assert page.locator(".by-symptom output").inner_text() == f"1 of {every}"
    page.get_by_label("Seen with", exact=True).select_option("seen with: clipping")
    assert rows.count() == 0
    for name in ("Updates", "Also", "Seen with"):
        page.get_by_label(name, exact=True).select_option("")
    page.get_by_label("Words").fill("NESTEROV velocity")
    page.get_by_label("Words").fill("nesterov")
    assert rows.all_inner_texts() == ["nesterov-ignored"]
    assert (
        visit("mistakes/index", script=False).locator(".symptoms tbody tr:visible").count() == every
    )


def test_the_side_bar_groups_the_mistakes_by_family(visit) -> None:
    tree = visit("mistakes/no-divide").locator(".sidebar-tree .current-page")
    assert tree.inner_text() == "no-divide"
    family = tree.locator("xpath=ancestor::li[1]")
    assert family.locator("> a").inner_text() == "Scaling"
    assert family.locator("xpath=ancestor::li[1]").locator("> a").inner_text() == "The mistakes"


DIFFS = ("missing-zero-grad", "no-divide", "clip-epsilon", "params-not-in-optimizer")


@pytest.mark.parametrize("name", DIFFS)
def test_a_mistakes_diffs_stand_side_by_side_and_nothing_wraps(visit, name) -> None:
    page = visit(f"mistakes/{name}")
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    lines = "e => e.clientHeight / parseFloat(getComputedStyle(e).lineHeight)"
    for width in WIDTHS:
        resize(page, width)
        assert page.evaluate(OVERFLOW) == 0
        found = page.locator(".diffs pre").all()
        assert len(found) >= 3
        for each in found:
            assert each.evaluate(lines) < each.inner_text().count("\n") + 2.5
            assert width < 1440 or each.evaluate("e => e.scrollWidth <= e.clientWidth")
        first = page.locator(".diffs").first.locator(".diff").all()
        lefts = {box.bounding_box()["x"] for box in first}
        assert len(lefts) == (1 if width == 390 else 3)


@pytest.mark.parametrize("name", PAGES)
def test_it_is_readable_without_javascript(visit, site, name) -> None:
    page = visit(name, script=False)
    assert not page.locator(".columns-bar").is_visible()
    assert page.locator(".cell:visible").count() > 20
    text = html.unescape((site / "read" / f"{name}.html").read_text())
    assert '<script src="http' not in text
    if name == "training":
        assert page.locator(".scenario:visible").count() == 4
