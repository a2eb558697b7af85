"""The pages of optimizers and of the reference, and what makes links and pages of plain text."""

import re
from itertools import permutations
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("sphinx")

from docutils import nodes
from docutils.core import publish_doctree
from sphinx.application import Sphinx

from docs import plots
from docs._ext import optimizer_pages, reference_pages
from docs._ext.plain_docstrings import as_rest
from docs._ext.prose import prose
from docs.written import stale, write
from lockstep.frameworks import FRAMEWORKS, NAMES
from lockstep.optimizers import measurement
from lockstep.optimizers.variants import VARIANTS


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    optimizer_pages.make(folder)
    reference_pages.make(folder / "implementations")
    return folder


@pytest.mark.parametrize("name", VARIANTS)
def test_an_optimizers_page_has_what_was_measured_and_lines_for_every_pair(made, name) -> None:
    page = (made / "optimizers" / f"{name}.md").read_text()
    for framework, measured in measurement.shipped().items():
        found = measured.distances[name]
        (row,) = re.findall(rf"^\| {NAMES[framework]} \|.*$", page, re.MULTILINE)
        numbers = [f"{each:.0e}" for each in (found.naive, found.here) if each is not None]
        assert re.findall(r"\d+e[+-]\d+", row.rpartition("`")[2]) == numbers
    pairs = re.findall(r"<summary>From (\w+) to (\w+)</summary>", page)
    assert pairs == list(permutations(NAMES.values(), 2))
    assert page.count("# The update of ") == len(pairs)


def test_the_optimizers_overview_has_every_variant_in_every_table(made) -> None:
    page = (made / "optimizers.md").read_text()
    for name in VARIANTS:
        assert page.count(f"| [{name}](optimizers/{name}.md) |") == 3
        for framework in ("tensorflow", "jax"):
            measured = measurement.shipped()[framework]
            defaults = measurement.differing(framework, VARIANTS[name], measured)
            assert all(f"`{default}`" in page for default in defaults)
    for file in plots.files(made / "optimizers" / "distances").values():
        assert file.stat().st_size < 30_000


@pytest.mark.parametrize("module", reference_pages.MODULES)
def test_a_module_has_all_its_functions_next_to_each_other(made, module) -> None:
    page = (made / "implementations" / f"{module}.md").read_text()
    defined = {each: reference_pages.definitions(each, module) for each in FRAMEWORKS}
    for framework, names in defined.items():
        assert names
        for name in names:
            assert f":: {framework}_impl.{module}.{name}\n" in page
    missing = sum(
        name not in found for found in defined.values() for name in set().union(*defined.values())
    )
    assert page.count("Has none.") == missing


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("Nobody calls zero_grad() here.", "Nobody calls `zero_grad()` here."),
        ("as in tf.cast(x) and torch.optim", "as in `tf.cast(x)` and `torch.optim`"),
        ("use_grad_mean=False, and eps=1e-6.", "`use_grad_mean=False`, and `eps=1e-6`."),
        ("where `i % K == 0` is", "where `i % K == 0` is"),
        ("it is no-divide by another name", "it is `no-divide` by another name"),
        ("PyTorch 2.0, e.g. 1.5 * [a] <b>", "PyTorch 2.0, e.g. 1.5 \\* \\[a\\] \\<b\\>"),
    ],
)
def test_plain_text_becomes_markdown(text, markdown) -> None:
    assert prose(text) == markdown


@pytest.mark.parametrize(
    ("docstring", "text", "kinds"),
    [
        ("Take `x * y` of *_impl.", "Take x * y of *_impl.", [nodes.literal]),
        ("Go\n\nx: one. y: two;\nz: 3.", "Go\n\nx: one.\n\ny: two\n\nz: 3.", [nodes.bullet_list]),
        ("Sum.\n\nOf\n- one\n  and\n- two", "Sum.\n\nOf\n\none\nand\n\ntwo", [nodes.bullet_list]),
        ("Sum.\n\n    a = `b`", "Sum.\n\na = `b`", [nodes.literal_block]),
    ],
)  # fmt: skip
def test_a_docstring_becomes_rest(docstring, text, kinds) -> None:
    document = publish_doctree(as_rest(docstring), settings_overrides={"halt_level": 2})
    assert document.astext() == text
    assert all(list(document.findall(kind)) for kind in kinds)


LINKING = """
# On `no-divide`

`no-divide`, [its `no-divide` page](https://example.com), `no-divide()`, no-divide
"""


def test_inline_code_that_names_a_mistake_becomes_a_link(tmp_path) -> None:
    (tmp_path / "guide").mkdir()
    (tmp_path / "guide" / "page.md").write_text(LINKING)
    (tmp_path / "index.md").write_text("# Index\n\n```{toctree}\nguide/page\n```\n")
    folders = tmp_path, None, tmp_path / "html", tmp_path / "doctrees", "html"
    extensions = ["myst_parser", "docs._ext.mistake_links"]
    Sphinx(*folders, {"extensions": extensions, "html_theme": "basic"}, status=None).build()
    page = (tmp_path / "html" / "guide" / "page.html").read_text()
    assert page.count('href="../mistakes/no-divide.html"><code') == 1
    assert page.index("mistakes/no-divide.html") > page.index("</h1>")


def test_what_is_written_again_is_stale_only_after_a_change(tmp_path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    write(source, "a")
    assert stale([target], [source])
    write(target, "b")
    assert not stale([target], [source])
    before = target.stat().st_mtime_ns
    write(target, "b")
    assert target.stat().st_mtime_ns == before
    write(target, "c")
    assert target.read_text() == "c"
