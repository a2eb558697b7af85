"""The three sources in columns: nothing is lost, nothing is doubled, and what is fused spans."""

import io
import subprocess
import sys

import pytest
from conftest import ROOT
from rich.console import Console

from lockstep.frameworks import FRAMEWORKS
from lockstep.problem.settings import ProblemError
from lockstep.source import columns
from lockstep.views import reading


def code_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("file", columns.FILES)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_line_of_a_file_is_in_one_cell(file, framework) -> None:
    cells = [
        row.cells[framework]
        for unit in columns.units(file)
        for row in unit.rows
        if framework in row.cells
    ]
    shown = [line for cell in cells for line in code_lines(cell.source)]
    assert sorted(shown) == sorted(code_lines(columns.source(framework, file)))


def test_every_file_of_the_folders_is_read() -> None:
    files = {file.stem for name in FRAMEWORKS for file in (ROOT / f"{name}_impl").glob("*.py")}
    assert files - {"__init__"} == set(columns.FILES)


@pytest.mark.parametrize("file", columns.FILES)
def test_every_row_is_covered_once_in_every_framework(file) -> None:
    for unit in columns.units(file):
        rows = [row.name for row in unit.rows]
        for framework in FRAMEWORKS:
            covered = [
                name
                for row in unit.rows
                if framework in row.cells
                for name in row.cells[framework].rows
            ]
            assert covered == rows, unit.path


def spans(unit: columns.Unit) -> dict[str, list[str]]:
    return {
        framework: [
            " + ".join(row.cells[framework].rows) for row in unit.rows if framework in row.cells
        ]
        for framework in FRAMEWORKS
    }


def test_the_loop_is_cut_at_its_concepts() -> None:
    (unit,) = columns.find("train_window")
    head, tail = ["signature", "docstring", "setup", "reset", "loop"], ["return"]
    assert spans(unit) == {
        "pytorch": [*head, "forward", "gradient + accumulate", "update", *tail],
        "tensorflow": [*head, "forward", "gradient", "accumulate", "update", *tail],
        "jax": [*head, "forward + gradient", "accumulate + update", *tail],
    }
    quiet = {
        (framework, row.name)
        for row in unit.rows
        for framework, cell in row.cells.items()
        if cell.quiet
    }
    assert quiet == {("jax", "reset")}


def test_what_is_equal_is_shown_once() -> None:
    (progress,) = columns.find("Progress")
    assert [row.name for row in progress.rows] == ["body"]
    assert progress.rows[0].common().startswith("class Progress")
    (loop,) = columns.find("train_window")
    assert [row.name for row in loop.rows if row.common()] == ["setup"]
    assert [row.name for row in loop.rows if row.common(("pytorch", "tensorflow"))] == [
        *("docstring", "setup", "loop", "return")
    ]


def test_a_reason_stands_where_a_folder_has_nothing() -> None:
    (unit,) = columns.find("training.micro_loss")
    cell = unit.rows[0].cells["pytorch"]
    assert cell.source == ""
    assert cell.note.startswith("Only JAX needs it: jax.grad takes a function")
    assert len(cell.rows) == len(unit.rows)


def test_a_name_is_found_and_another_is_told() -> None:
    assert columns.find("train_window")[0].file == "training"
    assert columns.find("recipe.train")[0].file == "recipe"
    assert [unit.name for unit in columns.find("schedule")] == ["about", "learning_rates", "factor"]
    (accumulate,) = columns.find("train_window.accumulate")
    assert ".backward()" in accumulate.rows[0].cells["pytorch"].source
    with pytest.raises(ProblemError, match=r"train_windw: .* did you mean train_window\?"):
        columns.find("train_windw")


def printed(width: int, name: str, frameworks=FRAMEWORKS) -> list[str]:
    out = Console(file=io.StringIO(), width=width, no_color=True)
    reading.read(out, columns.find(name), frameworks)
    return out.file.getvalue().splitlines()


def test_three_columns_where_they_fit() -> None:
    lines = printed(200, "train_window")
    (accumulate,) = [line for line in lines if "# accumulate:" in line]
    assert "# accumulate + update:" in accumulate
    (update,) = [line for line in lines if "# update: step()" in line]
    assert "# update: the optimizer" in update
    assert sum("examples = sum(" in line for line in lines) == 1
    assert max(map(len, lines)) <= 200


def test_concept_by_concept_where_they_do_not() -> None:
    lines = printed(100, "train_window")
    concepts = [line for line in lines if line.startswith("── ")]
    assert concepts[-4:] == [
        "── TensorFlow: update",
        *(f"── {name}: return" for name in ("PyTorch", "TensorFlow", "JAX")),
    ]
    assert "── JAX: accumulate + update" in concepts
    assert max(len(line) for line in lines) <= 62


def test_what_a_framework_has_not_is_told() -> None:
    assert "jax.grad takes a function" in " ".join(printed(100, "micro_loss", ["pytorch"]))
    assert "Only PyTorch needs it" in " ".join(printed(100, "library.Groups", ["jax"]))


def test_one_concept_says_what_it_is_fused_with() -> None:
    lines = printed(100, "train_window.accumulate")
    assert [line for line in lines if line.startswith("── ")] == [
        "── PyTorch: gradient + accumulate",
        "── TensorFlow: accumulate",
        "── JAX: accumulate + update",
    ]


def test_two_frameworks_in_columns() -> None:
    lines = printed(140, "train_window", ("pytorch", "jax"))
    assert any("PyTorch" in line and "JAX" in line for line in lines)
    assert not any("tape" in line for line in lines)


class Screen(Console):
    """A terminal that keeps what went through its pager."""

    def pager(self, **settings: object):
        self.paged = True
        return super().pager(pager=Keep(), **settings)


class Keep:
    def show(self, content: str) -> None:
        self.content = content


@pytest.mark.parametrize(("height", "paged"), [(10, True), (100, False)])
def test_a_pager_where_it_is_longer_than_the_screen(height, paged) -> None:
    out = Screen(file=io.StringIO(), width=200, height=height, force_terminal=True)
    out.paged = False
    reading.read(out, columns.find("train_window"), FRAMEWORKS)
    assert out.paged == paged


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lockstep.cli", "read", *arguments], capture_output=True, text=True
    )


def test_the_command_is_plain_when_piped() -> None:
    done = command("train_window", "--in", "pytorch", "jax")
    assert (done.returncode, done.stderr) == (0, "")
    assert "── JAX: forward + gradient" in done.stdout
    assert "TensorFlow" not in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nothing_like_it",), "lockstep: nothing_like_it: no such file, function or concept"),
        (("--in", "mxnet"), "lockstep: --in: mxnet is not a framework here"),
    ],
)
def test_what_cannot_be_read_is_told_in_a_line(arguments, said) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1
